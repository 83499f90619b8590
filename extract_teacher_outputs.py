"""Run a teacher once over sample shards and store what students learn from: parse, check, extract."""

from dataset.errors import run_script
from pretraining.teacher_cache.extraction_plan import plan_extraction
from pretraining.teacher_cache.verify import verify


def main(arguments: list[str] | None = None) -> None:
    plan = plan_extraction(arguments)
    if plan.verify:
        verify(plan)
        return
    from pretraining.teacher_cache.run_extraction import run

    run(plan)


if __name__ == "__main__":
    run_script(main)
