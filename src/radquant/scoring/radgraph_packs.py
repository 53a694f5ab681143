"""Several texts in one pass of the RadGraph network, with the package's own output for each.

The network takes a document of sentences; the package gives it one report as one sentence of a
document at a time. Here a document holds many. Four things would make the answers differ, and each
is dealt with here:

- A text longer than the encoder's window is folded, and then so is every text beside it; the
  tokenizer of modern-radgraph-xl counts special tokens that it does not add, and then what pads a
  text is read as its last word. Such texts are alone in their pass.
- The relation extractor keeps as many spans as the longest text needs, and fills the rows of
  shorter ones with a span that may be an entity, whose relations would be found twice. They are
  cut off before anything is predicted.
- With coreference, sentences of a document would be read together: nothing is packed then.
- Sums over padded tensors differ in their last bits. Where any decision on a text is so close that
  this could turn it (`TOLERANCE`), the package itself annotates that text.

Imported only in the environment of envs/radgraph.txt.
"""

import contextlib
import functools
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Annotation = dict[str, Any]
# Of the largest score. Padding was seen to change scores by up to 6e-6 of it in a network of the
# published size (12 layers, 768 wide) and random weights, by 1e-6 in a tiny one.
TOLERANCE = 5e-5
# A pass may not make larger tensors of all pairs of spans: what leaves the processor's cache takes
# longer together than one by one. In a network of the published size that is two usual reports.
MAX_TEXTS, MAX_BYTES = 32, 16_000_000


@dataclass(frozen=True)
class _Sentence:
    """A text as the network takes it."""

    text: str
    words: list[str]
    indices: dict[str, list[Any]]  # by name, of its word pieces and words
    spans: list[tuple[int, int]]
    alone: bool


@dataclass
class _Scores:
    """What the network decides on, for the texts of one pass."""

    entities: Any = None  # per text, per span: of no entity and of each label
    mentions: Any = None  # per text, per span: how much a relation is expected there
    relations: Any = None  # per text, pairs of its kept spans: of no relation and of each kind
    kept: Any = None  # per text, the spans that the relation extractor kept


class Packer:
    """Annotates texts with a loaded `RadGraph` network, several at a time."""

    def __init__(self, network: Any, model_type: str) -> None:
        self._network, self._model, self._model_type = network, network.model, model_type
        self._max_texts = 1 if _reads_across_sentences(self._model) else MAX_TEXTS
        _remember_words(_indexer(network)._allennlp_tokenizer)

    def annotate(self, texts: Iterable[str]) -> Iterator[tuple[str, Annotation]]:
        """Yield (text, {"text", "entities"}) for each distinct text, shorter ones first."""
        from radgraph.utils import preprocess_reports

        distinct = list(dict.fromkeys(texts))
        documents = preprocess_reports(distinct, self._model_type)
        words = [document["sentences"][0] for document in documents]
        order = sorted(range(len(distinct)), key=lambda index: len(words[index]))
        for pack in self._packs((distinct[index], words[index]) for index in order):
            # What the package prints when it fails may hold report text.
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                annotations = self._annotate_pack(pack)
            yield from zip((sentence.text for sentence in pack), annotations, strict=True)

    def _packs(self, texts: Iterable[tuple[str, list[str]]]) -> Iterator[list[_Sentence]]:
        pack: list[_Sentence] = []
        for text, words in texts:
            sentence = self._sentence(text, words)
            # As if all were as long as this one, which is the longest.
            too_large = (len(pack) + 1) * self._pair_bytes(len(words)) > MAX_BYTES
            if pack and (sentence.alone or too_large or len(pack) == self._max_texts):
                yield pack
                pack = []
            pack.append(sentence)
            if sentence.alone:
                yield pack
                pack = []
        if pack:
            yield pack

    def _pair_bytes(self, words: int) -> int:
        """Return how many bytes describe all pairs of the spans that the extractor keeps."""
        relation = self._model._relation
        kept = math.ceil(words * relation._spans_per_word)
        described = relation._relation_feedforwards[f"{self._model_type}__relation_labels"]
        return int(4 * kept**2 * described.input_dim)

    def _sentence(self, text: str, words: list[str]) -> _Sentence:
        from radgraph.allennlp.data.dataset_readers.dataset_utils import enumerate_spans
        from radgraph.allennlp.data.tokenizers import Token

        reader, indexer = self._network.reader, _indexer(self._network)
        tokens = [Token(reader._normalize_word(word)) for word in words]
        indices = indexer.tokens_to_indices(tokens, self._model.vocab)
        pieces, window = len(indices["token_ids"]), indexer._matched_indexer._max_length
        long = window is not None and pieces > window
        alone = not pieces or pieces != len(indices["wordpiece_mask"]) or long
        spans = enumerate_spans(words, max_span_width=reader._max_span_width)
        return _Sentence(text, words, indices, spans, alone)

    def _annotate_pack(self, pack: Sequence[_Sentence]) -> list[Annotation]:
        # A text without words (one of escaped line ends, too) or without pieces (of zero-width
        # characters) crashes the package.
        if not pack[0].spans or not pack[0].indices["token_ids"]:
            return [{"text": "", "entities": {}}]
        document = _document(pack, self._model_type)
        with torch.no_grad(), _kept_scores(self._model, self._model_type) as scores:
            self._model(text=self._text(pack), spans=_spans(pack), metadata=[document])
        return [
            self._by_the_package(sentence.text)
            if _is_close(sentence, scores, index)
            else self._annotation(sentence, scores, index)
            for index, sentence in enumerate(pack)
        ]

    def _annotation(self, sentence: _Sentence, scores: _Scores, index: int) -> Annotation:
        from radgraph.utils import get_entity

        labels = scores.entities[index][: len(sentence.spans)].argmax(dim=-1).tolist()
        entities = [
            [*span, self._label("ner_labels", label)]
            for span, label in zip(sentence.spans, labels, strict=True)
            if label  # 0 is no entity
        ]
        spans = [tuple(span) for span in scores.kept[index].tolist()]
        kinds = scores.relations[index].argmax(dim=-1)
        named = {(start, end) for start, end, _ in entities}
        relations = [
            [*spans[one], *spans[other], self._label("relation_labels", kinds[one, other] - 1)]
            for one, other in kinds.nonzero().tolist()
            if spans[one] in named and spans[other] in named  # the package drops all others
        ]
        return {
            "text": " ".join(sentence.words),
            "entities": get_entity(entities, relations, sentence.words),
        }

    def _label(self, kind: str, number: Any) -> str:
        namespace = f"{self._model_type}__{kind}"
        return str(self._model.vocab.get_token_from_index(int(number), namespace))

    def _text(self, pack: Sequence[_Sentence]) -> dict[str, Any]:
        """Return the word pieces of all sentences, padded, as one document [1, sentences, …]."""
        indexer = _indexer(self._network)
        lengths = {
            name: max(len(sentence.indices[name]) for sentence in pack) for name in pack[0].indices
        }
        padded = [indexer.as_padded_tensor_dict(sentence.indices, lengths) for sentence in pack]
        stacked = {name: torch.stack([one[name] for one in padded])[None] for name in lengths}
        return {"bert": stacked}

    def _by_the_package(self, text: str) -> Annotation:
        result = self._network([text])
        if "0" not in result:
            raise RuntimeError("radgraph returned no annotation for a text")
        return {"text": result["0"]["text"], "entities": result["0"]["entities"]}


def _indexer(network: Any) -> Any:
    return network.reader._token_indexers["bert"]


def _remember_words(tokenizer: Any) -> None:
    """Have the tokenizer, which takes word by word, cut each different word once."""
    pieces_of = functools.cache(lambda word: original([word])[0])
    original = tokenizer._intra_word_tokenize

    def tokenize(words: list[str]) -> tuple[list[Any], list[tuple[int, int] | None]]:
        tokens: list[Any] = []
        offsets: list[tuple[int, int] | None] = []
        for word in words:
            pieces = pieces_of(word)
            last = len(tokens) + len(pieces) - 1
            offsets.append((len(tokens), last) if pieces else None)
            tokens += pieces
        return tokens, offsets

    tokenizer._intra_word_tokenize = tokenize


def _reads_across_sentences(model: Any) -> bool:
    return bool(model._loss_weights["coref"] > 0 or model._coref.coref_prop > 0)


def _document(pack: Sequence[_Sentence], model_type: str) -> Any:
    from radgraph.dygie.data.dataset_readers.document import Document

    sentences = [sentence.words for sentence in pack]
    return Document.from_json({"doc_key": "0", "sentences": sentences, "dataset": model_type})


def _spans(pack: Sequence[_Sentence]) -> torch.Tensor:
    """Return all spans, [1, sentences, most spans, 2], padded with -1 as the package does."""
    spans = [torch.tensor(sentence.spans) for sentence in pack]
    return torch.nn.utils.rnn.pad_sequence(spans, batch_first=True, padding_value=-1)[None]


@contextlib.contextmanager
def _kept_scores(model: Any, model_type: str) -> Iterator[_Scores]:
    """Have the network's two extractors hand over their scores instead of making objects of them.

    A shorter text than the longest in its pass has rows of other spans behind its own: cut off.
    """
    kept = _Scores()

    def entities(scores: Any, spans: Any, mask: Any, document: Any) -> None:
        kept.entities = list(scores)

    def relations(spans: Any, scores: Any, counts: Any, document: Any) -> tuple[None, None]:
        texts = list(zip(spans, scores, counts.tolist(), strict=True))
        kept.kept = [own[:count] for own, _, count in texts]
        kept.relations = [own[:count, :count] for _, own, count in texts]
        return None, None

    def mentions(module: Any, inputs: Any, scores: Any) -> None:
        kept.mentions = list(scores[:, :, 0])

    pruner = model._relation._mention_pruners[f"{model_type}__relation_labels"]
    hook = pruner._scorer.register_forward_hook(mentions)
    model._ner.predict, model._relation.predict = entities, relations
    try:
        yield kept
    finally:
        hook.remove()
        del model._ner.predict, model._relation.predict  # the methods of the class again


def _is_close(sentence: _Sentence, scores: _Scores, index: int) -> bool:
    """Say whether a decision that the annotation shows could turn with the last bits of a sum.

    Those are the label of every span and, of the spans that are entities, which were kept for the
    relation extractor and what relates the kept ones.
    """
    labels, mentions = (
        own[index][: len(sentence.spans)] for own in (scores.entities, scores.mentions)
    )
    kept, relations = scores.kept[index], scores.relations[index]
    entity = labels.argmax(dim=-1) > 0
    named = {
        tuple(span) for span, found in zip(sentence.spans, entity.tolist(), strict=True) if found
    }
    own = [number for number, span in enumerate(kept.tolist()) if tuple(span) in named]
    return (
        _close_labels(labels)
        or _close_labels(relations[own][:, own].flatten(0, 1))
        or _close_choice(mentions, entity, len(kept))
    )


def _close_labels(scores: torch.Tensor) -> bool:
    """Say whether the two best labels of any row of `scores` are nearly as good."""
    best = scores.topk(2, dim=-1).values
    return _within(best[:, 0] - best[:, 1], scores)


def _close_choice(scores: torch.Tensor, which: torch.Tensor, kept: int) -> bool:
    """Say whether any of `which` was nearly not, or nearly, among the `kept` best `scores`."""
    if kept >= len(scores):
        return False
    last, next_best = scores.topk(kept + 1).values[-2:]
    gaps = torch.where(scores >= last, scores - next_best, last - scores)
    return _within(gaps[which], scores)


def _within(gaps: torch.Tensor, scores: torch.Tensor) -> bool:
    return bool((gaps <= TOLERANCE * scores.abs().max().clamp_min(1)).any()) if len(gaps) else False
