"""Names of the branches of mmdet's semi-supervised pipelines."""

TEACHER_BRANCH, STUDENT_BRANCH = 'unsup_teacher', 'unsup_student'
