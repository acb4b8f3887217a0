"""The teacher in the loop: what training from a store is compared with. Knows both the teacher and the trainer."""
