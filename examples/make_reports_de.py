"""Write reports-de.csv, the tutorial's table of invented German chest X-ray reports.

    python examples/make_reports_de.py > examples/reports-de.csv

No patient, examination or report in it is real. A report is put together from the sentences below
by a seed, so the script always writes the same table. Patients come again with follow-ups.
"""

import csv
import random
import sys
from collections.abc import Callable
from datetime import date, timedelta
from typing import NamedTuple

SEED = 7
PATIENTS = 84
FIRST_DAY = date(2031, 1, 6)  # no examination has been made yet then
COLUMNS = ("Auftrag", "Patient", "Datum", "Bericht")
TWO_VIEWS, ONE_VIEW = "Röntgen Thorax in zwei Ebenen", "Röntgen Thorax a.p. im Liegen"
Draw = random.Random


class Case(NamedTuple):
    """What a report says."""

    view: str
    indication: str
    findings: dict[str, str]  # sentences by what they are about, in place of the usual ones
    impression: str
    advice: str = ""


# What is said of parts in which nothing is found; "rest" is bones and devices.
USUAL = {
    "heart": (
        "Herz normal groß und normal konfiguriert.",
        "Herzschatten nicht verbreitert.",
        "Das Herz ist nicht vergrößert, die Herztaille ist erhalten.",
        "Normale Herzgröße bei einem Herz-Thorax-Quotienten von 0,46.",
        "Altersentsprechende Herzgröße, mäßige Aortensklerose.",
    ),
    "mediastinum": (
        "Oberes Mediastinum mittelständig und nicht verbreitert.",
        "Mediastinum schlank, Trachea mittelständig.",
        "Das Mediastinum ist nicht verbreitert, die Hili sind gefäßtypisch konfiguriert.",
        "Hili beidseits schlank, keine mediastinale Raumforderung.",
    ),
    "lungs": (
        "Lunge beidseits frei belüftet, keine flächigen Infiltrate.",
        "Kein Nachweis umschriebener Verschattungen in beiden Lungen.",
        "Beide Lungen sind seitengleich belüftet und ohne Infiltrat.",
        "Regelrechte Gefäßzeichnung bis in die Peripherie, kein Infiltrat abgrenzbar.",
    ),
    "vessels": (
        "Keine pulmonalvenösen Stauungszeichen.",
        "Keine Zeichen der Stauung.",
        "Pulmonale Gefäße zentral und peripher unauffällig.",
    ),
    "pleura": (
        "Randwinkel beidseits frei, kein Pleuraerguss. Kein Pneumothorax.",
        "Zwerchfelle glatt begrenzt, keine Ergüsse, kein Pneumothorax.",
        "Kein Nachweis eines Pleuraergusses oder eines Pneumothorax.",
        "Beide Sinus phrenicocostales sind einsehbar. Ein Pneumothorax ist nicht abgrenzbar.",
    ),
    "rest": (
        "Knöcherner Thorax ohne frische Fraktur.",
        "Degenerative Veränderungen der Brustwirbelsäule.",
        "Mitabgebildetes Skelett altersentsprechend.",
        "Kein Nachweis einer frischen knöchernen Verletzung.",
        "",
    ),
}
# What an impression may say beside the finding.
REST = ("", "", " Sonst kein akuter Befund.", " Im Übrigen altersentsprechender Befund.")
SIDES = (("rechts", "rechten", "rechtsseitige"), ("links", "linken", "linksseitige"))


def normal(draw: Draw) -> Case:
    indication = draw.choice(
        (
            "Präoperative Abklärung vor Knieprothese.",
            "Husten seit drei Wochen. Infiltrat?",
            "Thorakale Schmerzen, EKG unauffällig.",
            "Einstellungsuntersuchung.",
            "Fieber unklarer Ursache. Fokus?",
            "Sturz auf den Brustkorb, Prellmarke. Fraktur?",
        )
    )
    impression = draw.choice(
        (
            "Unauffälliger Röntgenbefund des Thorax.",
            "Kein Nachweis einer akuten kardiopulmonalen Erkrankung.",
            "Altersentsprechender Befund ohne Infiltrat, Stauung oder Erguss.",
            "Kein Anhalt für eine Pneumonie.",
            "Kein akut pathologischer Befund im Bereich von Herz und Lunge.",
        )
    )
    return Case(TWO_VIEWS, indication, {}, impression)


def pneumonia(draw: Draw) -> Case:
    side, sided, _ = draw.choice(SIDES)
    where = draw.choice(("Unterfeld", "Mittelfeld", "Oberfeld"))
    shadow = draw.choice(
        (
            f"Flächige, unscharf begrenzte Verschattung im {sided} {where} mit positivem "
            "Bronchopneumogramm.",
            f"Fleckige Verdichtungen im {sided} {where}, vereinbar mit einem Infiltrat.",
            f"Neu abgrenzbare homogene Transparenzminderung im {sided} {where}.",
        )
    )
    impression = draw.choice(
        (
            f"Pneumonisches Infiltrat im {sided} {where}.",
            f"Bild einer Pneumonie im {sided} {where}. Kein Erguss.",
            f"Verdacht auf Pneumonie {side} im {where}, keine Stauungszeichen.",
        )
    )
    return Case(
        TWO_VIEWS,
        draw.choice(
            (
                "Fieber bis 39,2 °C, produktiver Husten, CRP 180 mg/l. Pneumonie?",
                "Atemnot und Husten seit vier Tagen. Infiltrat?",
                "Abgeschlagenheit, Rasselgeräusche auskultatorisch.",
            )
        ),
        {"lungs": shadow + " Übrige Lungenabschnitte frei."},
        impression,
        draw.choice(("", "Verlaufskontrolle nach Abschluss der antibiotischen Therapie.")),
    )


def effusion(draw: Draw) -> Case:
    side, sided, adjective = draw.choice(SIDES)
    height = draw.choice((2, 3, 4, 5))
    return Case(
        draw.choice((TWO_VIEWS, ONE_VIEW)),
        draw.choice(("Zunehmende Dyspnoe. Erguss?", "Gedämpfter Klopfschall " + side + " basal.")),
        {
            "lungs": f"Basale Belüftungsminderung {side}, kein umschriebenes Infiltrat der übrigen "
            "Lunge.",
            "pleura": f"Nach lateral ansteigende Verschattung über dem {sided} Zwerchfell, im "
            f"Winkel etwa {height} cm hoch. Gegenseite ergussfrei. Kein Pneumothorax.",
        },
        f"{adjective.capitalize()}r Pleuraerguss von etwa {height} cm Höhe mit angrenzender "
        "Dystelektase.",
        draw.choice(("", "Sonographie zur Frage der Punktionswürdigkeit.")),
    )


def congestion(draw: Draw) -> Case:
    degree = draw.choice(("geringe", "mäßige", "deutliche"))
    ratio = draw.choice(("0,56", "0,58", "0,61", "0,64"))
    return Case(
        draw.choice((TWO_VIEWS, ONE_VIEW)),
        draw.choice(
            (
                "Bekannte Herzinsuffizienz, Beinödeme, zunehmende Luftnot. Stauung?",
                "Kardiale Dekompensation. Verlaufskontrolle nach Diuretika.",
                "Vorhofflimmern, Dyspnoe NYHA III.",
            )
        ),
        {
            "heart": f"Das Herz ist nach links verbreitert, Herz-Thorax-Quotient {ratio}. "
            "Aortensklerose.",
            "vessels": "Verbreiterte, unscharf begrenzte Hili. Kranialisation der "
            "Lungengefäße und peribronchiale Zeichnungsvermehrung, einzelne Kerley-B-Linien.",
            "pleura": "Kleine Randwinkelergüsse beidseits. Kein Pneumothorax.",
            "lungs": "Kein umschriebenes Infiltrat.",
        },
        f"Kardiomegalie mit {degree[:-1]}er pulmonalvenöser Stauung und kleinen Pleuraergüssen "
        "beidseits.",
    )


def big_heart(draw: Draw) -> Case:
    return Case(
        TWO_VIEWS,
        draw.choice(("Arterielle Hypertonie. Herzgröße?", "Vor Portanlage.", "Palpitationen.")),
        {
            "heart": draw.choice(
                (
                    "Linksverbreitertes Herz mit gerundeter Spitze, Aorta elongiert.",
                    "Das Herz ist grenzwertig groß, die Aorta elongiert und sklerosiert.",
                )
            )
        },
        draw.choice(
            (
                "Kardiomegalie ohne Zeichen der Dekompensation.",
                "Linksherzbetonte Konfiguration. Keine Stauung, kein Infiltrat.",
            )
        ),
    )


def pneumothorax(draw: Draw) -> Case:
    side, sided, adjective = draw.choice(SIDES)
    gap = draw.choice((8, 12, 15, 22))
    drained = draw.random() < 0.5
    tube = f" Einliegende Thoraxdrainage {side}, Spitze apikal." if drained else ""
    return Case(
        draw.choice((TWO_VIEWS, ONE_VIEW)),
        "Verlaufskontrolle bei Thoraxdrainage." if drained else "Plötzlicher Thoraxschmerz.",
        {
            "pleura": f"Apikale Aufhellung ohne Lungenzeichnung {side} mit {gap} mm breitem "
            f"Pleuraspalt.{tube} Keine Mediastinalverlagerung. Kein Erguss.",
            "lungs": f"Teilkollaps der {sided} Lunge, Gegenseite regelrecht belüftet.",
        },
        f"{adjective.capitalize()}r apikaler Pneumothorax von {gap} mm"
        + (" bei einliegender Drainage." if drained else ". Kein Spannungspneumothorax."),
        "" if drained else "Kontrolle in sechs Stunden.",
    )


def catheter(draw: Draw) -> Case:
    vein = draw.choice(("V. jugularis interna rechts", "V. subclavia rechts", "V. subclavia links"))
    deep = draw.random() < 0.3
    tip = "im rechten Vorhof" if deep else "in der V. cava superior"
    return Case(
        ONE_VIEW,
        "Lagekontrolle nach ZVK-Anlage. Pneumothorax?",
        {
            "rest": f"Zentraler Venenkatheter über die {vein}, die Spitze projiziert sich {tip}.",
        },
        (
            "ZVK-Spitze zu tief im rechten Vorhof. Kein Pneumothorax."
            if deep
            else "Regelrechte Lage des zentralen Venenkatheters. Kein Pneumothorax."
        ),
        "Rückzug um etwa 3 cm." if deep else "",
    )


def intensive(draw: Draw) -> Case:
    distance = draw.choice((2, 3, 4, 5))
    return Case(
        ONE_VIEW,
        draw.choice(("Intubation und Magensonde, Lagekontrolle.", "Beatmung, Tag 3. Infiltrat?")),
        {
            "rest": f"Endotrachealtubus mit Spitze {distance} cm oberhalb der Carina. Magensonde "
            "mit Spitze subdiaphragmal.",
            "lungs": "Streifige Verdichtungen basal beidseits, am ehesten Dystelektasen.",
        },
        "Tubus und Magensonde in regelrechter Position. Basale Dystelektasen beidseits, kein "
        "sicheres Infiltrat.",
    )


def nodule(draw: Draw) -> Case:
    _, sided, _ = draw.choice(SIDES)
    size = draw.choice((7, 9, 12, 16, 23))
    calcified = draw.random() < 0.4
    edge = "scharf begrenzter, verkalkter" if calcified else "unscharf begrenzter, nicht verkalkter"
    return Case(
        TWO_VIEWS,
        draw.choice(("Nikotinabusus, 40 pack years. Raumforderung?", "Gewichtsverlust.")),
        {
            "lungs": f"Im {sided} Oberfeld ein {edge} Rundherd von {size} mm. Sonst keine "
            "Verschattungen."
        },
        (
            f"Verkalkter Rundherd im {sided} Oberfeld, am ehesten Granulom."
            if calcified
            else f"Rundherd von {size} mm im {sided} Oberfeld, nicht sicher benigne."
        ),
        "" if calcified else "Computertomographie des Thorax.",
    )


def emphysema(draw: Draw) -> Case:
    return Case(
        TWO_VIEWS,
        draw.choice(("COPD GOLD III, Exazerbation. Pneumonie?", "Belastungsdyspnoe, Raucher.")),
        {
            "lungs": "Überblähte Lungen mit abgeflachten Zwerchfellen und vergrößertem "
            "Retrosternalraum, Gefäßrarefizierung in den Oberfeldern. Kein Infiltrat.",
            "heart": "Schmales, steil gestelltes Herz.",
        },
        draw.choice(
            (
                "Zeichen des Lungenemphysems. Kein Infiltrat, kein Erguss.",
                "Lungenüberblähung bei COPD ohne Nachweis einer Pneumonie.",
            )
        ),
    )


def atelectasis(draw: Draw) -> Case:
    side, sided, _ = draw.choice(SIDES)
    return Case(
        draw.choice((TWO_VIEWS, ONE_VIEW)),
        draw.choice(("Zustand nach Laparotomie, Sättigungsabfall.", "Postoperativ Tag 2, Fieber.")),
        {
            "lungs": f"Streifige Verschattung im {sided} Unterfeld mit angehobenem Zwerchfell "
            f"{side}. Kein Bronchopneumogramm."
        },
        draw.choice(
            (
                f"Plattenatelektase im {sided} Unterfeld bei Zwerchfellhochstand.",
                f"Dystelektase {side} basal, kein sicheres Infiltrat.",
            )
        ),
    )


def fracture(draw: Draw) -> Case:
    side, _, _ = draw.choice(SIDES)
    first = draw.choice((5, 6, 7))
    return Case(
        TWO_VIEWS,
        "Sturz von der Leiter, Druckschmerz " + side + ". Fraktur, Pneumothorax?",
        {
            "rest": f"Gering dislozierte Frakturen der {first}. und {first + 1}. Rippe {side} "
            "dorsolateral."
        },
        f"Frakturen der {first}. und {first + 1}. Rippe {side}. Kein Pneumothorax, kein Erguss.",
    )


def after_surgery(draw: Draw) -> Case:
    graft = draw.choice(("Bypassoperation", "Aortenklappenersatz"))
    return Case(
        draw.choice((TWO_VIEWS, ONE_VIEW)),
        f"Zustand nach {graft}. Verlaufskontrolle.",
        {
            "rest": "Drahtcerclagen nach medianer Sternotomie, intakt. Schrittmacheraggregat links "
            "pektoral, Sonden in typischer Lage.",
            "heart": "Das Herz ist linksbetont, gegenüber der Voraufnahme größenkonstant.",
            "pleura": "Kleiner Randwinkelerguss links. Kein Pneumothorax.",
        },
        f"Postoperativer Befund nach {graft} mit kleinem Pleuraerguss links. Keine Stauung.",
    )


def fibrosis(draw: Draw) -> Case:
    return Case(
        TWO_VIEWS,
        draw.choice(("Trockener Husten, Knisterrasseln.", "Bekannte Lungenfibrose. Progress?")),
        {
            "lungs": "Vermehrte retikuläre Zeichnung basal und peripher betont, vermindertes "
            "Lungenvolumen. Kein neues flächiges Infiltrat."
        },
        draw.choice(
            (
                "Interstitielle Zeichnungsvermehrung, vereinbar mit einer Lungenfibrose.",
                "Fibrotische Veränderungen beidseits basal ohne frisches Infiltrat.",
            )
        ),
        draw.choice(("", "Hochauflösende Computertomographie.")),
    )


def hernia(draw: Draw) -> Case:
    return Case(
        TWO_VIEWS,
        draw.choice(("Retrosternale Schmerzen, Sodbrennen.", "Präoperativ vor Katarakt.")),
        {
            "mediastinum": "Retrokardiale Verschattung mit Luft-Flüssigkeits-Spiegel. Oberes "
            "Mediastinum mittelständig."
        },
        "Axiale Hiatushernie. Sonst altersentsprechender Befund ohne Infiltrat.",
    )


# How often each comes: many reports of every clinic say that nothing is acute.
CASES: dict[Callable[[Draw], Case], int] = {
    normal: 30,
    pneumonia: 14,
    effusion: 9,
    congestion: 10,
    big_heart: 6,
    pneumothorax: 6,
    catheter: 6,
    intensive: 5,
    nodule: 6,
    emphysema: 6,
    atelectasis: 6,
    fracture: 3,
    after_surgery: 5,
    fibrosis: 4,
    hernia: 3,
}


def written(case: Case, day: date, earlier: date | None, draw: Draw) -> str:
    """The whole report, as an information system exports it: headings, each with its text."""
    said = {part: case.findings.get(part) or draw.choice(usual) for part, usual in USUAL.items()}
    rest = draw.choice(REST) if case.findings and "Sonst" not in case.impression else ""
    sections = {
        "Klinische Angaben": case.indication,
        "Voraufnahmen": f"{earlier:%d.%m.%Y}" if earlier else "",
        "Befund": " ".join(sentence for sentence in said.values() if sentence),
        "Beurteilung": case.impression + rest,
        "Empfehlung": case.advice,
    }
    parts = [f"{heading}:\n{text}" for heading, text in sections.items() if text]
    return "\n\n".join([f"{case.view} vom {day:%d.%m.%Y}", *parts])


def rows() -> list[tuple[str, str, str, str]]:
    """All reports in the order of their days."""
    draw = random.Random(SEED)
    found = []
    for patient in range(1, PATIENTS + 1):
        day, earlier = FIRST_DAY + timedelta(days=draw.randrange(200)), None
        for _ in range(draw.choice((1, 1, 1, 2, 2))):
            (make,) = draw.choices(list(CASES), list(CASES.values()))
            text = written(make(draw), day, earlier, draw)
            found.append((day, f"Muster-{patient:03}", text))
            day, earlier = day + timedelta(days=draw.randrange(2, 60)), day
    found.sort(key=lambda row: row[:2])
    return [
        (f"Erfunden-{number:04}", patient, f"{day:%d.%m.%Y}", text)
        for number, (day, patient, text) in enumerate(found, 1)
    ]


def main() -> None:
    table = csv.writer(sys.stdout, delimiter=";", lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows(rows())


if __name__ == "__main__":
    main()
