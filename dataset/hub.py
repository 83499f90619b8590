"""Whether the hub knows a data set, asked once and briefly: the `datasets` library would try again for minutes without network."""

from dataset.errors import UserError, one_line

HUB_SECONDS = 10
SHOWN = 300


def check_on_hub(flag: str, name: str, works: str) -> None:
    """UserError, which names `flag` and says what `works`, where the hub does not know `name` or does not answer; not asked offline."""
    import huggingface_hub

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return
    try:
        huggingface_hub.HfApi().dataset_info(name, timeout=HUB_SECONDS)
    except Exception as error:
        raise UserError(f"{flag} {name} does not exist here, and the hub has not answered for a data set of this name "
                        f"({one_line(error)[:SHOWN]}); {works} would work") from error
