"""The demo's table: every evaluation a line, and a sentence where the order is not as one expects."""

from caev2.demo.evaluations import Line, markdown_of, out_of_order, print_lines, roles_of
from caev2.eval.interval import wilson

GOOD = Line(
    name="knn",
    shares={
        "pixels": wilson(40, 100),
        "random start": wilson(10, 100),
        "student": wilson(80, 100),
        "teacher": wilson(95, 100),
    },
)
NO_BETTER_THAN_CHANCE = Line(name="attentive", shares={"random start": wilson(30, 100), "student": wilson(35, 100)})
ABOVE_ITS_TEACHER = Line(name="linear", shares={"student": wilson(95, 100), "teacher": wilson(50, 100)})


def test_a_line_in_the_expected_order_needs_no_word():
    assert out_of_order([GOOD]) == []
    assert markdown_of([GOOD], "Title").endswith("random start < student, student <= teacher.\n")


def test_a_student_that_is_no_better_than_its_start_or_better_than_its_teacher_is_told():
    sentences = out_of_order([GOOD, NO_BETTER_THAN_CHANCE, ABOVE_ITS_TEACHER])
    assert len(sentences) == 2
    assert sentences[0].startswith("attentive: the student (35.0 (26.4-44.7)) is not clearly above its random start")
    assert sentences[1].startswith("linear: the student (95.0")
    assert sentences[1] in markdown_of([ABOVE_ITS_TEACHER], "Title")


def test_who_cannot_be_judged_has_an_empty_cell(capsys):
    lines = [GOOD, NO_BETTER_THAN_CHANCE]
    assert roles_of(lines) == ["pixels", "random start", "student", "teacher"]
    assert "| attentive |  | 30.0 (21.9-39.6) | 35.0 (26.4-44.7) |  |" in markdown_of(lines, "Title")
    print_lines(lines, "Title")
    said = capsys.readouterr().out
    assert "95.0 (88.8-97.8)" in said
    assert "attentive" in said
