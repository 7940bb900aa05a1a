"""The data-protection statement: who sees what, and check lists that find what they look for."""

from __future__ import annotations

import pytest

from fedjax_health.evaluation.rows import write_rows
from fedjax_health.report import statement
from fedjax_health.report.statement import FOUND, NONE, OPEN
from fedjax_health.types import Row, UserError

FORMAL = {"mechanism": "central_gaussian", "unit": "client"}


def schema(*names, kind="numeric"):
    return {"columns": [{"name": name, "kind": kind} for name in names]}


def checks(tmp_path, schemas, ledger=FORMAL, files=()):
    made = statement.make_statement(str(tmp_path), ledger, schemas, files, [])
    return {check.question.split(" ", 1)[0]: check for check in made.safe_harbor}, made


@pytest.mark.parametrize(
    ("column", "letter"),
    [
        ("first_name", "A"), ("givenName", "A"), ("zip", "B"), ("ZipCode", "B"), ("date_of_birth", "C"),
        ("admission_time", "C"), ("phone", "D"), ("fax_number", "E"), ("eMail", "F"), ("e_mail", "F"), ("SSN", "G"),
        ("subject_id", "H"), ("HADM_ID", "H"), ("patient", "H"), ("insurance", "I"), ("account", "J"), ("license", "K"),
        ("licence_no", "K"), ("plate", "L"), ("device_id", "M"), ("SrcMac", "M"), ("serial", "M"), ("url", "N"),
        ("SrcAddr", "O"), ("ip", "O"), ("fingerprint", "P"), ("photo", "Q"),
    ],
)  # fmt: skip
def test_every_identifier_is_found_by_its_name(tmp_path, column, letter):
    found, _ = checks(tmp_path, {"ward": schema("heart_rate", column)})
    assert found[letter].verdict == FOUND and f"ward.{column}" in found[letter].evidence
    assert [k for k, check in found.items() if check.verdict == FOUND] == [letter]


def test_a_server_that_holds_teachers_is_named_as_such(tmp_path):
    plain, voted = (
        checks(tmp_path, {}, FORMAL | {"teachers": held})[1].parties[1] for held in ({}, {"vitals/pategan": 400})
    )
    assert "teachers" not in plain.sees + plain.limit
    assert (
        voted.sees
        == f"{plain.sees}; it holds the 400 teachers of vitals/pategan and counts their votes before the noise"
    )
    assert voted.limit.startswith("trusted") and "noisy majorities" in voted.limit


@pytest.mark.parametrize(
    "column",
    [
        "heart_rate",
        "glucose",
        "SpO2",
        "systolic_bp",
        "respiration",
        "packet_rate",
        "entropy",
        "dur",
        "Sport",
        "Temp",
        "lactate",
    ],
)
def test_measurements_are_no_identifiers(tmp_path, column):
    found, _ = checks(tmp_path, {"ward": schema(column)})
    assert all(check.verdict != FOUND for check in found.values())
    assert found["R"].verdict == OPEN and found["free"].verdict == NONE and len(found) == 19


@pytest.mark.parametrize(("oldest", "verdict"), [(89, NONE), (90, FOUND)])
def test_ages_are_read_from_what_is_published(tmp_path, oldest, verdict):
    folder = tmp_path / "synthetic"
    folder.mkdir()
    (folder / "ward_vae.csv").write_text(f"age,heart_rate\n40,120\n{oldest},300\n,95\n")
    (folder / "other_vae.csv").write_text("age\n120\n")  # of another domain
    found, _ = checks(
        tmp_path, {"ward": schema("age", "heart_rate")}, files=["other_vae.csv", "ward_vae.csv", "ward_vae.parquet"]
    )
    assert found["C"].verdict == verdict and f"oldest published age {oldest}" in found["C"].evidence


def test_ages_without_a_file_are_not_said_to_be_young(tmp_path):
    found, _ = checks(tmp_path, {"ward": schema("age", "heart_rate")}, files=["schema.json"])
    assert found["C"].verdict == OPEN and "no published file" in found["C"].evidence


def test_a_damaged_age_names_file_line_and_column(tmp_path):
    (tmp_path / "synthetic").mkdir()
    (tmp_path / "synthetic" / "ward_vae.csv").write_text("age\n40\nold\n")
    with pytest.raises(UserError, match=r"ward_vae\.csv line 3, column age: 'old' is not a number"):
        checks(tmp_path, {"ward": schema("age")}, files=["ward_vae.csv"])


def test_without_a_schema_nothing_is_claimed(tmp_path):
    found, made = checks(tmp_path, {})
    assert {check.verdict for check in found.values()} == {OPEN}
    assert {check.verdict for check in made.anonymity} == {OPEN}


def test_the_three_tests_are_answered_by_the_largest_measured_risk_and_by_nothing_else(tmp_path):
    nan = float("nan")
    risks = [
        ("vae", "singling-out:univariate", 0.02, 0.01, 0.03),
        ("vae", "singling-out:multivariate", 0.31, 0.25, 0.36),
        ("gan", "singling-out:multivariate", nan, nan, nan),
        ("real", "singling-out:multivariate", 0.9, 0.8, 1.0),  # the ceiling is no answer about a generator
        ("vae", "inference:glucose", -0.01, -0.05, 0.03),
        ("vae", "attribute-inference:sex", 0.04, -0.01, 0.08),
        ("gan", "linkability", nan, nan, nan),
    ]
    rows = [Row("ward", m, row, "risk", *figures, 500) for m, row, *figures in risks]
    write_rows([*rows, rows[1]._replace(metric="attack_rate", value=0.99)], str(tmp_path / "tables" / "disclosure.csv"))
    _, made = checks(tmp_path, {"ward": schema("heart_rate")})
    member, single, link, infer = made.anonymity
    assert member.verdict == OPEN
    assert single.verdict == "VAE on ward: 31.0% [25.0, 36.0] (singling out by several attributes, largest of 2)"
    assert "1 of 3 attacks are not assessed" in single.evidence and "promise" in single.evidence
    assert link.verdict == OPEN and "1 of 1 attacks are not assessed" in link.evidence
    assert (
        infer.verdict
        == "VAE on ward: 4.0% [-1.0, 8.0] (trees trained on synthetic records, of sex, largest of 2)".replace("-", "−")
    )


def test_a_run_without_a_mechanism_promises_nobody_anything(tmp_path):
    _, formal = checks(tmp_path, {})
    _, bare = checks(tmp_path, {}, {"mechanism": "none"})
    assert "promise" in formal.parties[-1].limit and "nothing proven" in bare.parties[-1].limit
    assert "draws the noise" in formal.parties[1].sees and "noise" not in bare.parties[1].sees
    assert all("promise" not in check.evidence for check in bare.anonymity)


def test_a_server_that_sees_noisy_updates_only_is_not_said_to_be_trusted_with_records(tmp_path):
    _, made = checks(tmp_path, {}, {"mechanism": "record_gaussian", "unit": "record"})
    who, server = made.parties[0].who, made.parties[1]
    assert who == "each client" and "with the noise" in server.sees and "holds against the server" in server.limit


def test_a_server_of_local_noise_is_trusted_with_nothing(tmp_path):
    _, made = checks(tmp_path, {}, {"mechanism": "local_gaussian", "unit": "client"})
    server = made.parties[1]
    assert "class share with the noise its client put in" in server.sees and "draws the noise" not in server.sees
    assert "trusted with no data" in server.limit and "holds against the server" in server.limit


def test_the_server_sees_sums_with_secure_aggregation_and_updates_without(tmp_path):
    def server(ledger):
        _, made = checks(tmp_path, {"ward": schema("heart_rate")}, ledger)
        return next(party for party in made.parties if party.who == "the server")

    assert server(FORMAL).limit == "trusted: no secure aggregation" and "every single update" in server(FORMAL).sees
    assert server(FORMAL | {"server_sees_sums_of": 1}) == server(FORMAL)
    for ledger in (FORMAL, {"mechanism": "none", "unit": "client"}):
        party = server(ledger | {"server_sees_sums_of": 9})
        assert party.sees.startswith("sums of at least 9 clients' clipped updates, who took part")
        assert ("draws the noise" in party.sees) == (ledger is FORMAL) and party.limit.startswith("simulated")


@pytest.mark.parametrize("least", [1, 9])
def test_what_clients_are_asked_for_besides_updates_is_named(tmp_path, least):
    asked = {"asked_of_clients": ["class shares", "distribution functions"], "server_sees_sums_of": least}
    _, made = checks(tmp_path, {}, FORMAL | asked)
    assert "class shares, distribution functions" in made.parties[1].sees
    _, made = checks(tmp_path, {}, FORMAL | {"server_sees_sums_of": least})
    assert "class shares" in made.parties[1].sees and "distribution" not in made.parties[1].sees


def test_without_a_training_the_server_sees_statistics_alone(tmp_path):
    asked = {"asked_of_clients": ["class shares", "correlation"], "one_shot": {"alone": True}}
    _, made = checks(tmp_path, {}, FORMAL | asked)
    assert (
        made.parties[1].sees.startswith("class shares, correlation of each client")
        and "update" not in made.parties[1].sees
    )
    _, made = checks(tmp_path, {}, FORMAL | asked | {"one_shot": {"alone": False}})
    assert "every single update" in made.parties[1].sees
