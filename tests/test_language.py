"""Other languages are told from English, in whole corpora and mixed ones; English always passes."""

import json
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from radquant.errors import UserError
from radquant.scoring.language import ENGLISH, check_language, counts, known_share, language_of

SCRIPT = Path(__file__).parents[1] / "scripts" / "annotate.py"

# Each as written in that language's clinics: whole sentences, telegraphic ones, and terms that
# English shares.
FOREIGN = {
    "German": """
        Kein Pneumothorax. Keine Pleuraergüsse. Herz normal groß.
        Regelrechte Darstellung des Herzens und der Lunge. Kein Nachweis von Infiltraten.
        Z.n. Sternotomie. Herz linksbetont, Aortensklerose. Streifige Belüftungsstörung rechts.
        RÖNTGEN THORAX: KEIN HINWEIS AUF PNEUMONIE ODER STAUUNG. HERZ NICHT VERGRÖSSERT.
    """,
    "French": """
        Silhouette cardiaque normale. Absence de pneumothorax ou d'épanchement pleural.
        Opacité alvéolaire de la base droite compatible avec une pneumonie. Sonde en place.
        Cardiomégalie stable. Surcharge vasculaire. Absence de lésion osseuse traumatique.
    """,
    "Spanish": """
        No se observa derrame pleural ni neumotórax. Silueta cardíaca normal.
        Cardiomegalia. Aorta elongada. Atelectasia basal izquierda. Catéter venoso central.
    """,
    "Portuguese": """
        Área cardíaca normal. Ausência de derrame pleural ou pneumotórax.
        Opacidade no lobo inferior direito, podendo corresponder a processo infeccioso.
    """,
    "Italian": """
        Non versamento pleurico. Non lesioni pleuroparenchimali a focolaio in atto.
        Catetere venoso centrale con estremo distale in vena cava superiore. Cuore ingrandito.
    """,
    "Dutch": """
        Geen pneumothorax. Geen pleuravocht. Normale hartgrootte. Slank mediastinum.
        De tip van de centrale lijn is in de vena cava superior. Geen infiltraat in de longen.
    """,
    "Swedish": """
        Ingen pneumothorax. Ingen pleuravätska. Normal hjärtstorlek.
        Hjärtat är förstorat. Central venkateter med spetsen i vena cava superior.
    """,
    "Polish": """
        Pola płucne bez zmian ogniskowych. Sylwetka serca w normie.
        Widoczne zagęszczenia miąższowe w dolnym polu płuca prawego. Serce powiększone.
    """,
    "Turkish": """
        Her iki akciğer parankimi doğaldır. Plevral effüzyon izlenmedi.
        Sağ akciğer alt zonda konsolidasyon izlenmektedir. Pnömotoraks saptanmadı.
    """,
    "Chinese": "双肺纹理清晰，未见明显实变影。\n右肺下叶见片状高密度影，考虑肺炎。",
    "Japanese": "心拡大なし。肺野に異常陰影を認めません。\n右下肺野に浸潤影を認める。CTR 55%。",
    "Korean": """
        폐에 활동성 병변이 없습니다. 심장 크기는 정상입니다. 흉수 없음.
        우하엽에 경화가 관찰되며 폐렴을 시사합니다. 좌측 흉수가 소량 있습니다.
    """,
    "Arabic": """
        القلب بحجم طبيعي. لا يوجد انصباب جنبي أو استرواح صدري.
        يوجد تكثف في الفص السفلي الأيمن يتوافق مع التهاب رئوي.
    """,
    "Russian": """
        Легочные поля без очаговых и инфильтративных изменений. Корни структурны.
        Справа в нижней доле определяется участок инфильтрации. Плевральный выпот слева.
    """,
    "Czech": "Plicní parenchym bez ložiskových změn. Srdce nezvětšeno. Bez pneumotoraxu.",
    "Finnish": "Ei keuhkokuumetta. Sydän normaalikokoinen. Ei pleuranestettä eikä ilmarintaa.",
    "Indonesian": "Jantung tidak membesar. Tidak tampak infiltrat maupun efusi pleura.",
    "Vietnamese": "Bóng tim không to. Phổi sáng đều hai bên. Không thấy tràn dịch màng phổi.",
    "Thai": "ไม่พบความผิดปกติของปอดและหัวใจ ขนาดหัวใจปกติ",
}
ENGLISH_TEXTS = """
    The heart is normal in size. The lungs are clear. No pleural effusion or pneumothorax.
    PA & LAT CHEST: HEART NL SIZE. LUNGS CLR. NO EFF. BONES UNREMARKABLE.
    ETT 3 cm above carina. NGT in stomach. RIJ CVL tip SVC. Bibasilar atx. No ptx.
    pt w/ sob, r/o pna. no ptx seen, ett ok. mild vasc congestion. cm.
    1. LLL pna. 2. Small L pleural eff. 3. CM.
    XXXX XXXX. XXXX-year-old XXXX with chest XXXX. No acute XXXX. T12 2.5 cm 10/12/2011.
    In comparison with the study of ___, there is little change. Dr. ___ was paged at 10:15 a.m.
    Swan-Ganz catheter withdrawn. Dobbhoff coiled in esophagus; recommend repositioning.
    The liver is homogeneous without focal lesion. Spleen, pancreas and kidneys enhance normally.
    MRI OF THE LUMBAR SPINE: L4-L5 DISC PROTRUSION WITH MODERATE FORAMINAL NARROWING.
    BI-RADS 2. Scattered fibroglandular densities. No suspicious calcifications or masses.
    Transverse fracture of the distal radius with dorsal angulation. Carpal alignment maintained.
"""


def lines(block: str) -> list[str]:
    return [line.strip() for line in block.split("\n") if line.strip()]


ENGLISH_REPORTS = lines(ENGLISH_TEXTS)
NAMES = [f"r{number}" for number in range(100)]


@pytest.mark.parametrize("language", FOREIGN)
def test_another_language_is_told_from_english(language: str) -> None:
    for text in lines(FOREIGN[language]):
        known, counted = counts(text)
        assert counted >= 4
        assert known < 0.9 * ENGLISH * counted, text
    assert not language_of(lines(FOREIGN[language]) * 3).english


@pytest.mark.parametrize("text", ENGLISH_REPORTS)
def test_english_passes_in_capitals_telegraphic_and_with_placeholders(text: str) -> None:
    for written in (text, text.upper(), text.lower()):
        assert known_share([written]) > 1.15 * ENGLISH


def test_what_holds_no_words_is_not_judged() -> None:
    assert counts("XXXX ___ 12.5 (3/4) // L R T12") == (0, 0)
    assert known_share([]) == known_share(["", " ", "12"]) == 1
    # Too little to say, even where nothing is known.
    assert language_of(["Normal."] * 9 + ["Unauffällig."]).english
    assert language_of(["Kein Erguss. Herz groß."]).english
    assert language_of(["Normal."] * 100).english
    # Short reports are judged all together.
    assert not language_of(["Kein Erguss.", "Infiltrat links."] * 10).english


def test_a_mixed_corpus_is_refused_by_the_share_of_its_reports() -> None:
    german = lines(FOREIGN["German"])
    mixed = [*ENGLISH_REPORTS, *ENGLISH_REPORTS, *german]
    found = language_of(mixed)
    assert found.share > ENGLISH  # the words alone would not show it
    assert found.foreign == tuple(range(len(mixed) - len(german), len(mixed)))
    assert not found.english
    with pytest.raises(UserError) as caught:
        check_language(NAMES, mixed, "eval.csv, column 'impression'")
    said = str(caught.value)
    assert said.startswith("eval.csv, column 'impression': ")
    assert f"{len(german)} of {found.judged} texts are not English" in said
    assert "first that of report 'r24'" in said
    assert "scoring: {language: any}" in said
    assert not any(word in said for word in ("Pneumothorax", "Herz", "Sternotomie"))
    # One in thirty does not stop a corpus.
    assert language_of([*ENGLISH_REPORTS * 3, german[0]]).english


def test_words_drawn_at_random_are_not_english() -> None:
    tokens = "Bloss zapis Ġthe ictionary quent illo ombre fdsa kwargs param Ñas ward self ünd thro"
    assert known_share([tokens]) < ENGLISH
    assert known_share(["asdf qwer zxcv uiop hjkl"]) == 0


def annotate(table: Path, output: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> list[dict]:
    words = ["--texts", str(table), "--column", "impression", "--output", str(output), *more]
    monkeypatch.setattr(sys, "argv", ["annotate.py", *words])
    runpy.run_path(str(SCRIPT))["main"]()
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_references_and_inputs_of_another_language_are_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, german = tmp_path / "eval.csv", lines(FOREIGN["German"]) * 3

    def write(findings: list[str], impressions: list[str]) -> None:
        columns = {"id": NAMES[:12], "findings": findings, "impression": impressions}
        pd.DataFrame(columns).to_csv(table, index=False)

    write(ENGLISH_REPORTS, german)
    with monkeypatch.context() as patch:
        nothing = ModuleType("radquant.scoring.annotators.lexicon")  # has no `load`
        patch.setitem(sys.modules, nothing.__name__, nothing)
        with pytest.raises(UserError, match=r"column 'impression': 1?\d% of the words"):
            annotate(table, tmp_path / "a.jsonl", patch)
    assert not (tmp_path / "a.jsonl").exists()
    assert len(annotate(table, tmp_path / "a.jsonl", monkeypatch, "--language", "any")) == 12
    write(german, ENGLISH_REPORTS)
    with pytest.raises(UserError, match="column 'findings': "):
        annotate(table, tmp_path / "b.jsonl", monkeypatch)
    write([*ENGLISH_REPORTS[:-1], "Anosmia, hyposmia, ageusia, parosmia."], ENGLISH_REPORTS)
    assert len(annotate(table, tmp_path / "b.jsonl", monkeypatch)) == 12
