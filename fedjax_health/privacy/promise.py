"""What a mechanism promises in words: how the two worlds differ, and what the guarantee says nothing about."""

from __future__ import annotations

NOT_COVERED = (
    "tables/, figures/, report.html, metrics.jsonl, checkpoints/ and tensorboard/: made from real records to audit the "
    "run; they are for the people who hold those records and are not part of what the guarantee covers.",
    "Seeds after the first: repeats of the run that give the intervals; only the first one is published.",
    "Hyper-parameters: the shipped ones were chosen on simulated data, which holds no real person; tuning on your data is "
    "not accounted for.",
    "The classifiers of the tables, and with evaluation.augmentation='chosen' how many synthetic rows they are given: they "
    "read real records, and the choice those of validation clients, without noise; they are evaluation and not published.",
    "The number of clients, and the schema's public ranges, units and code books: taken as public.",
)

NOISE = {
    "seed": "The noise: it is made again from the run's seed, so that a run can be repeated, through keys of 31 bits. Whoever "
    "knows the seed (config.json and manifest.json name it) or tries all keys can subtract it; against others the guarantee "
    "holds.",
    "system": "The noise: its keys come from 256 bits of the operating system, which lie in this folder until the last "
    "training is done and are then removed. Whoever could read the folder or the process's memory before, or still finds the "
    "file in a backup or a snapshot, can subtract it; against those who cannot tell ChaCha20 from chance the guarantee holds.",
}

NOT_EXACT = (
    "The last digits of the noise{}: it is drawn in 32-bit floating point, in which not every real number can come out; that "
    "may tell more than the figures say (Mironov 2012)."
)

RECORDS_ONLY = (
    "Whole clients: someone with n records is hidden n times worse than one record (a group of n). Whether a client takes "
    "part, and how many records it holds, is not hidden.",
)

LOCAL_ONLY = (
    "That a client takes part, in which rounds and how often: the server sees who sends a message, and when. What is hidden "
    "is what its records say; the figures are over the draw of the cohorts, and a client that is drawn more often than "
    "expected is protected less.",
)

DISTRIBUTED_ONLY = (
    "That a client takes part, in which rounds and how often: the server sees who sends a message, and when. What is hidden "
    "is what its records say; the figures are over the draw of the cohorts.",
    "Clients that tell the server the noise they drew: it goes out of the sums they are in. The figures hold while the others "
    "of every sum are at least as many as the config's least_share asks for.",
    "The masks: this program simulates the secure sum under one key. The server's part of the promise is that of a run of the "
    "protocol, in which it sees sums only.",
)

IN_TURNS = (
    "Which rounds are a client's turn: its number says so, and numbers are public. Whether it took part in them is hidden.",
)

TEACHERS = (
    "Which teacher is a client's: its number says so, and numbers are public. The teachers themselves and their votes before "
    "the noise: the server holds them and publishes neither; the last teachers lie in checkpoints/.",
)

# noise on the client: the promise holds against a server that sees who takes part, so that sampling hides nothing
REVEALED = ("record_gaussian", "local_gaussian", "distributed_gaussian")


def relation_of(mechanism: str) -> str:
    """How two worlds differ: a client is not there, or it is there and its data (or one record of it) is emptied.

    Emptied, a client's own message moves by at most the bound, and it is sent all the same. A group of n clients is n such
    steps, so the groups' figures hold; they are loose for local noise, where the clients' messages are apart.

    Args:
      mechanism: of the config.
    """
    return "zero_out_one" if mechanism in REVEALED else "add_or_remove_one"


def not_covered(mechanism: str, randomness: str = "seed", teachers: bool = False) -> list[str]:
    """What the guarantee of a mechanism says nothing about, in sentences.

    Args:
      mechanism: of the config.
      randomness: of the config.
      teachers: whether any training's noise is on votes of teachers.
    """
    own = {
        "record_gaussian": RECORDS_ONLY,
        "local_gaussian": LOCAL_ONLY,
        "distributed_gaussian": DISTRIBUTED_ONLY,
        "correlated_gaussian": IN_TURNS,
    }
    inexact = NOT_EXACT.format(" of the class shares" if mechanism == "distributed_gaussian" else "")
    voted = TEACHERS if teachers else ()
    return [*NOT_COVERED, NOISE[randomness], inexact, *own.get(mechanism, ()), *voted]
