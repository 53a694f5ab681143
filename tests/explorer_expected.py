"""What the explorer should list, worked out from the payload alone."""


def stands(payload, report, output, finding, status):
    """Whether a finding stands in an output as the filter asks, from the payload alone."""
    texts = (output["text"], report["outputs"][0]["text"], report["reference"])
    here, original, reference = (payload["texts"][text]["findings"].get(finding) for text in texts)
    if status == "":
        return bool(here or reference)
    if status.endswith("reference") and status.split()[0] != "other":
        return reference == status.split()[0]
    if status.endswith("an output"):
        return here == status.split()[0]
    return here != (original if status.startswith("changed") else reference)


def by_default(payload):
    """The systems that are looked at where none is chosen."""
    quantized = range(1, len(payload["systems"]))
    sound = [at for at in quantized if payload["systems"][at] not in payload["ruined"]]
    return sound or list(quantized)


def expected(payload, precision=(), kind=(), flag=(), q="", sort="harm", finding="", status=""):
    """The ids that the explorer should list, worked out from the payload alone."""
    systems = [payload["systems"].index(name) for name in precision]
    systems = systems or by_default(payload)
    texts = [entry["text"].lower() for entry in payload["texts"]]
    rows = []
    for place, report in enumerate(payload["reports"]):
        outputs = [report["outputs"][at] for at in systems]
        here = [
            output
            for output in outputs
            if (not kind or {change["kind"] for change in output["changes"]} & set(kind))
            and (not flag or set(output["flags"]) & set(flag))
            and (not finding or stands(payload, report, output, finding, status))
        ]
        said = [
            texts[report["reference"]],
            texts[report["outputs"][0]["text"]],
            report["id"].lower(),
        ]
        said += [texts[output["text"]] for output in outputs]
        said += [texts[number] for number in report["inputs"]]
        if here and any(q.lower() in text for text in said):
            harms = [output["harm"] for output in outputs]
            rows.append((-max(harms), -sum(harms), place, report["id"]))
    return [row[-1] for row in (sorted(rows) if sort == "harm" else rows)]
