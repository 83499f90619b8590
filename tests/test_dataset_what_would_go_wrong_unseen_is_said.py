"""Mistakes that would give samples all the same are said: a tokenizer or a type that does not fit, another corpus, a misspelt flag."""

import re

import pytest
from sampling_case import Here
from tiny_corpus import STEMS, folder_bytes, make_articles, write_articles, write_text_shard, write_vocabulary
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers

from dataset import generate_samples, inspect_samples, jobs, process_data, shard_data
from dataset.errors import UserError
from dataset.sampling.text import STRICT
from dataset.sampling.tokens import BlockTokenizer
from dataset.shard_format import read_info
from dataset.tokenizer import load_tokenizer, special_ids

ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ProcessExecutor", Here)
    for name in ("training0", "training1", "test0"):
        write_text_shard(tmp_path / "text" / f"{name}.txt", make_articles(6, seed=len(name) + int(name[-1])))
    write_vocabulary(tmp_path / "tok")
    return tmp_path


def generate(place, *flags, text="text", output="out"):
    defaults = {"--dir": place / text, "-o": place / output, "--model_name": place / "tok", "--max_seq_length": 32, "--n_processes": 1}
    given = {**defaults, **dict(zip(flags[::2], flags[1::2], strict=True))}
    generate_samples.main([str(part) for pair in given.items() for part in pair if part is not None])
    return folder_bytes(place / output)


def shard(place, *flags):
    shard_data.main(list(map(str, ["--dir", place / "articles", "-o", place / "deep" / "shards", *flags])))


def test_text_that_the_tokenizer_does_not_know_is_said_and_found_again(place, capsys):
    write_vocabulary(place / "lower", [*STEMS, "##s", "##ed", ".", "!", "no", *map(str, range(9))])
    generate(place)
    said = capsys.readouterr()
    known = re.search(r"3 shards written with \d+ samples and \d+ tokens of text \((.*)% of them unknown\)\n$", said.out)
    assert float(known[1]) > 1 and "of the tokens are the unknown one" in said.err, "the articles' numbers are unknown"
    generate(place, "--model_name", place / "lower", "--do_lower_case", 1, output="fits")
    said = capsys.readouterr()
    assert "unknown one" not in said.err and "(0.00% of them unknown)" in said.out
    assert inspect_samples.main([str(place / "fits"), "--max_shared", "1"]) == 0
    generate(place, "--model_name", place / "lower", "--do_lower_case", 0, output="cased")
    assert re.search(r"^\d+\.\d% of the tokens are the unknown one: the tokenizer does not fit", capsys.readouterr().err, re.MULTILINE)
    assert inspect_samples.main([str(place / "cased"), "--max_shared", "1"]) == 1
    assert re.search(r"\d % of the tokens in train are the unknown token, more than --max_unknown", capsys.readouterr().out)


def test_samples_of_another_corpus_are_not_replaced(place, capsys):
    made = generate(place)
    write_text_shard(place / "text" / "training1.txt", make_articles(5, seed=99))
    changed = generate(place)
    assert "1 shards are made anew, as their text has changed: train_shard_1.hdf5" in capsys.readouterr().out
    assert [name for name in made if made[name] != changed[name]] == ["train_shard_1.hdf5"]
    for name in ("training0", "training1", "test0"):
        write_text_shard(place / "books" / f"{name}.txt", make_articles(4, seed=50 + len(name) + int(name[-1])))
    with pytest.raises(UserError, match=r"its 3 shards were all made from other text than that of --dir .*books; another --output_dir"):
        generate(place, text="books")
    assert folder_bytes(place / "out") == changed


def test_articles_that_are_replaced_are_said(place, capsys):
    for name in ("one", "two"):
        (place / f"{name}.txt").write_text(f"Text {name}.\n")
        process_data.main(["-f", str(place / f"{name}.txt"), "-o", str(place / "p"), "--type", "lines"])
        assert ("is there and will be replaced" in capsys.readouterr().out) == (name == "two")


@pytest.mark.parametrize(
    ("length", "flags", "most"),
    [(512, [], 77), (128, [], 20), (128, ["--masked_lm_prob", "0.3"], 39), (100, ["--masked_lm_prob", "0.07"], 7), (128, ["--nsp"], 20),
     (512, ["--max_predictions_per_seq", "20"], 20), (8, ["--masked_lm_prob", "1"], 6), (8, ["--masked_lm_prob", "0"], 1)],
)
def test_by_default_as_much_is_masked_as_the_probability_says(place, capsys, length, flags, most):
    flags = ["--dir", place / "text", "-o", place / "out", "--model_name", place / "tok", "--max_seq_length", length, *flags]
    parsed = generate_samples.parse_flags(list(map(str, flags)))
    assert parsed.max_predictions_per_seq == most
    generate_samples.say_if_capped(parsed)
    assert ("77 would reach 15%" in capsys.readouterr().err) == ("--max_predictions_per_seq" in flags)


OTHER_TYPES = {
    '{"text": "A b."}\n{"text": "C."}\n': "a JSON object is no plain text; --type jsonl with --field would work",
    "\n  <mediawiki xmlns='x'>\n": "line 2: XML, such as a MediaWiki dump, is no plain text; --type wiki would work",
    "<?xml version='1.0'?>\n<mediawiki>": "--type wiki would work",
    '<doc id="1" title="A">\nA b.\n</doc>\n': "--type wikiextractor would work",
}


@pytest.mark.parametrize(("content", "message"), OTHER_TYPES.items())
def test_a_file_of_another_type_is_not_read_as_text(place, content, message):
    (place / "in").mkdir()
    (place / "in" / "a.txt").write_text(content)
    for kind in ("text", "lines", "bookcorpus", "wikitext"):
        file = place / "in" if kind == "bookcorpus" else place / "in" / "a.txt"
        with pytest.raises(UserError, match=re.escape(message)):
            process_data.main(["-f", str(file), "-o", str(place / "p"), "--type", kind])
    (place / "in" / "a.txt").write_text('{so} it begins\n{"text": 1}\n<doc\n')
    process_data.main(["-f", str(place / "in" / "a.txt"), "-o", str(place / "p"), "--type", "lines"])


def test_a_language_that_is_none_is_refused(place):
    write_articles(place / "articles" / "a.txt", make_articles(6))
    for language in ("xx", "english", "e1"):
        with pytest.raises(UserError, match=f"--language {language}; an ISO 639 code"):
            shard(place, "--num_train_shards", 2, "--num_test_shards", 1, "--language", language)
    shard(place, "--num_train_shards", 2, "--num_test_shards", 1, "--language", "gsw", "--n_processes", 1)


def test_too_few_articles_leave_no_folder_behind_and_what_is_read_is_said(place, capsys):
    for name in ("a", "b", "c", "d"):
        write_articles(place / "articles" / f"{name}.txt", make_articles(1))
    with pytest.raises(UserError, match="found 4"):
        shard(place, "--n_processes", 1)
    assert not (place / "deep").exists()
    assert "4 files of articles, 0.0 MB: a.txt, b.txt, c.txt, ...\n" in capsys.readouterr().out
    (place / "deep" / "shards").mkdir(parents=True)
    with pytest.raises(UserError, match="found 4"):
        shard(place, "--n_processes", 1)
    assert (place / "deep" / "shards").is_dir()


def test_a_tokenizer_that_knows_nothing_of_the_text_is_to_blame(place):
    tokenizer = Tokenizer(models.BPE({name: number for number, name in enumerate(ROBERTA)}, []))
    tokenizer.add_special_tokens(ROBERTA)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.save(str(place / "none.json"))
    with pytest.raises(UserError, match=r"training0.txt: the tokenizer \(vocabulary of 5\) made no token of it"):
        generate(place, "--model_name", place / "none.json")


def test_a_folder_of_vocabulary_and_merges_is_robertas_tokenizer(place):
    trained = ByteLevelBPETokenizer()
    text = (place / "text" / "training0.txt").read_text()
    trained.train_from_iterator([text], vocab_size=400, special_tokens=ROBERTA)
    (place / "merges").mkdir()
    trained.save_model(str(place / "merges"))
    tokenizer = load_tokenizer(place / "merges")
    assert special_ids(tokenizer).all == {0, 1, 2, 3, 4} and tokenizer.get_vocab() == trained.get_vocab()
    assert tokenizer.encode(text, add_special_tokens=False).ids == trained.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode("a<mask>").ids == [0, tokenizer.token_to_id("a"), 4, 2]
    assert tokenizer.encode("a", "a").tokens == ["<s>", "a", "</s>", "</s>", "a", "</s>"]
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    generate(place, "--model_name", place / "merges")
    block = next(BlockTokenizer(tokenizer).read(place / "text" / "training0.txt", STRICT))
    assert len(block.ids) and read_info(place / "out" / "train_shard_0.hdf5").attributes["unk_token_id"] == 3
    (place / "merges" / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"no tokenizer.json and no vocab.txt, nor vocab.json with merges.txt"):
        load_tokenizer(place / "merges")
    (place / "merges" / "merges.txt").write_text("#version: 0.2\nnever seen\n")
    with pytest.raises(UserError, match="are no byte-level BPE"):
        load_tokenizer(place / "merges")


def test_a_misspelt_flag_is_named_with_the_one_that_was_meant(place):
    with pytest.raises(UserError, match=r"unknown flag --max_seq_lenght; did you mean --max_seq_length\?"):
        generate(place, "--max_seq_lenght", 32)
    with pytest.raises(UserError, match=r"unknown flag --modelname; did you mean --model_name\?"):
        generate_samples.main(["--modelname=x"])
    with pytest.raises(UserError, match=r"unknown flag --output_folder; did you mean --output_dir\?"):
        shard(place, "--output_folder", "x")


def test_folders_of_the_wrong_step_are_told_apart(place):
    write_articles(place / "articles" / "lines_one_article_per_line.txt", make_articles(2))
    with pytest.raises(UserError, match=r"neither 'train' nor 'test' in its name; .*shard_data makes them from process_data's articles"):
        generate(place, text="articles")
    with pytest.raises(UserError, match=r"--output_dir .* is also --dir; another folder would work"):
        generate(place, output="text")


def test_processes_have_no_effect_beside_a_cluster(place, capsys):
    for script, flags in ((generate_samples, ["--model_name", "x"]), (shard_data, [])):
        flags = ["--dir", str(place / "text"), "-o", str(place / "out"), *flags]
        script.parse_flags([*flags, "--n_processes", "2", "--dask_address", "tcp://h:1"])
        assert "no effect: --n_processes 2" in capsys.readouterr().err
        assert script.parse_flags([*flags, "--dask_address", "tcp://h:1"]).n_processes == script.parse_flags(flags).n_processes >= 1
        assert not capsys.readouterr().err


def test_help_tells_defaults_what_none_means_and_what_may_be_packed(capsys):
    def help_of(script) -> str:
        with pytest.raises(SystemExit):
            script.parse_flags(["--help"])
        return " ".join(capsys.readouterr().out.split())

    assert "bytes that are no UTF-8; default: strict" in help_of(generate_samples)
    assert "none: masks are drawn anew by the trainer in every epoch" in help_of(generate_samples)
    assert "files may be packed (.gz, .bz2, .zst)" in help_of(process_data)
