"""The content of `certificate.json`: one pydantic model for each part.

Rules of schema 1, so that a certificate can be checked for as long as it is kept:
- Every key is signed but `signature`, and unknown keys are refused.
- Nothing in it names a person, a path or a machine; photographs are identified by salted hashes.
- Numbers and judgements come from the run's record; nothing is said that the record does not.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA: Literal[1] = 1
KIND: Literal["unsee certificate"] = "unsee certificate"
SCHEMA_ID = "https://unsee-ml.github.io/unsee/certificate-1.schema.json"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# A point in time or a day, ISO 8601.
Time = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2}))?$",
        max_length=40,
    ),
]
Text = Annotated[str, Field(strict=True, max_length=4000)]
Short = Annotated[str, Field(strict=True, max_length=300)]
# Whole numbers beyond 2^53 have no exact form in JSON.
Count = Annotated[int, Field(strict=True, ge=0, lt=2**53)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]


class Part(BaseModel):
    """A frozen part of a certificate; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Photographs(Part):
    """The photographs of the data subjects, identified so that only the salt's holder can match."""

    count: Count = Field(
        description="Number of different photographs. Copies, also encoded or sized otherwise, "
        "count as one and have hashes of their own."
    )
    salted_sha256: tuple[Digest, ...] = Field(
        description="HMAC-SHA256 of the digest of each photograph's decoded pixels, sorted. The "
        "key is the salt, which the controller keeps: without it a photograph cannot be matched."
    )
    salt_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] = Field(
        description="Identifies the salt without disclosing it."
    )


class EarlierPatch(Part):
    """An earlier request, whose patch lies below this one's."""

    request_id: Short | None = Field(default=None, description="Reference of that request.")
    patch_id: Digest = Field(description="Identity of its patch, as `unsee history` prints it.")


class ReAudit(Part):
    """A measure of people that this request is not about, after it was carried out."""

    who: Literal["forgotten_earlier", "kept"] = Field(
        description="forgotten_earlier: subjects of earlier requests, who must stay forgotten; "
        "kept: everyone else, who must still be recognised."
    )
    request_id: Short | None = Field(default=None, description="The earlier request, if it is one.")
    measure: Short = Field(description="Key of the measure, such as forget_holdout/vqa/accuracy.")
    before: Real | None = Field(default=None, description="Score before this request, 0..1.")
    after: Real | None = Field(default=None, description="Score after it, 0..1.")
    low: Real | None = Field(default=None, description="Lower end of the 95 % interval of `after`.")
    high: Real | None = Field(default=None, description="Upper end of the 95 % interval.")
    n: Count | None = Field(default=None, description="Number of questions or pictures.")
    margin: Real | None = Field(default=None, description="Largest change that is accepted.")
    passed: Flag | None = Field(
        default=None, description="Whether the change is within the margin; null if not judged."
    )


class Request(Part):
    """The request for erasure that the run answers, as the controller has recorded it."""

    id: Short | None = Field(
        default=None, description="The controller's reference; it should name nobody."
    )
    received: Time | None = Field(
        default=None, description="When the controller received the request."
    )
    carried_out: Time | None = Field(default=None, description="When it was carried out.")
    data_subjects: Count | None = Field(
        default=None, description="Number of people that the request is about."
    )
    photographs: Photographs | None = Field(
        default=None, description="The photographs; null if they were not given."
    )
    earlier: tuple[EarlierPatch, ...] = Field(
        default=(), description="Patches of earlier requests, in the order of application."
    )
    re_audit: tuple[ReAudit, ...] = Field(
        default=(), description="Measures of everyone else after this request."
    )
    decision: Literal["accepted", "not_accepted"] | None = Field(
        default=None,
        description="Whether the result meets the margins that the controller declared; null if "
        "nothing was decided.",
    )
    reasons: tuple[Text, ...] = Field(default=(), description="What failed, in words.")


class RunFacts(Part):
    """The run that was made, and the hash of its record."""

    record_sha256: Digest = Field(description="SHA-256 of the bytes of summary.json.")
    kind: Short = Field(description="Command of the run, such as unlearn.")
    finished: Short | None = Field(default=None, description="When it was finished.")
    command: Text | None = Field(
        default=None, description="The command, without values that could name a person."
    )
    method: Short | None = Field(default=None, description="The unlearning method.")
    source: Text | None = Field(default=None, description="The method's paper.")
    parameters: dict[Short, Text] = Field(
        default={}, description="All hyperparameters as text, without paths."
    )
    cost_seconds: Real | None = Field(default=None, description="Time of unlearning (s).")
    people: Count | None = Field(default=None, description="Number of people that were forgotten.")


class Checkpoint(Part):
    """The model before the run."""

    name: Short | None = Field(
        default=None, description="Hub id or name of the folder, without its path; null if unknown."
    )
    weights_sha256: Digest | None = Field(
        default=None, description="SHA-256 over the weights that were loaded."
    )
    weights_part: Literal["all", "visual"] = Field(
        default="all", description="Which weights those are."
    )
    identity_sha256: Digest | None = Field(
        default=None,
        description="Identity of the checkpoint's files in the patch's manifest: names, dtypes and "
        "shapes of all tensors, and the bytes of the visual ones; null without a patch.",
    )
    earlier_patches: tuple[Digest, ...] = Field(
        default=(), description="Identities of the patches that are on it already, in order."
    )


class Result(Part):
    """The model after the run, and what was saved of it."""

    saved: Literal["patch", "model", "adapter"] | None = Field(
        default=None, description="What was saved; null if nothing was."
    )
    weights_sha256: Digest | None = Field(
        default=None, description="SHA-256 over the same weights after the run."
    )
    patch_id: Digest | None = Field(
        default=None,
        description="Identity of the patch, as `unsee history` prints it; null without a patch.",
    )
    manifest_sha256: Digest | None = Field(
        default=None, description="SHA-256 of the patch's manifest.json; null without a patch."
    )
    tensors_sha256: Digest | None = Field(
        default=None, description="SHA-256 of the patch's patch.safetensors; null without a patch."
    )
    patch_bytes: Count | None = Field(default=None, description="Size of the patch (bytes).")


class TensorChange(Part):
    """A tensor that differs between base and result."""

    name: Short = Field(description="Name in the base checkpoint's files.")
    dtype: Short = Field(description="As safetensors spells it, such as BF16.")
    shape: tuple[Count, ...] = Field(description="Its shape.")
    before: Digest = Field(description="SHA-256 of its bytes in the base.")
    after: Digest = Field(description="SHA-256 of its bytes in the result.")


class TextCheck(Part):
    """Whether what the model does without images is the same, and how that was checked."""

    identical: Flag | None = Field(
        default=None,
        description="Whether text-only logits are equal bit for bit; null if not checked.",
    )
    probes: Count | None = Field(default=None, description="Number of texts that were compared.")
    language_part_unchanged: Flag | None = Field(
        default=None, description="Whether the language part has the same SHA-256; null if unread."
    )
    language_part_sha256: Digest | None = Field(default=None, description="That SHA-256.")
    statement: Text = Field(description="How it was checked and what came out, in words.")


class Changes(Part):
    """The difference between base and result."""

    tensors: tuple[TensorChange, ...] | None = Field(
        default=None, description="Every changed tensor; null if no patch lists them."
    )
    changed: Count | None = Field(default=None, description="Number of changed parameters.")
    total: Count | None = Field(default=None, description="Number of parameters of the model.")
    outside_visual: Count | None = Field(
        default=None, description="Number of changed parameters outside the visual part."
    )
    text: TextCheck = Field(description="The check of the behaviour on text.")


class Score(Part):
    """A score with its 95 % interval."""

    value: Real | None = Field(default=None, description="Mean score, 0..1; null is unscored.")
    low: Real | None = Field(default=None, description="Lower end of the 95 % interval.")
    high: Real | None = Field(default=None, description="Upper end of the 95 % interval.")
    n: Count | None = Field(default=None, description="Number of scored questions or pictures.")
    n_unscored: Count | None = Field(default=None, description="Number without a score.")


class MeasureRow(Part):
    """One measure of every model."""

    key: Short = Field(description="split/modality/metric, as in the record.")
    group: Literal["forgotten", "kept", "general", "text", "ability", "other"] = Field(
        description="Whom or what it is about."
    )
    better: Literal["lower", "higher", "reference"] = Field(description="Which direction is good.")
    models: dict[Short, Score] = Field(
        description="Score by model: target (before), unlearned (after) and the references."
    )


class AttackScore(Part):
    """One model's score before an attack and at its worst."""

    before: Real | None = Field(default=None, description="Score before the attack, 0..1.")
    after: Real | None = Field(
        default=None, description="Score under it, 0..1; of relearning the highest of the curve."
    )
    low: Real | None = Field(default=None, description="Lower end of the 95 % interval of `after`.")
    high: Real | None = Field(default=None, description="Upper end of the 95 % interval.")
    step: Count | None = Field(default=None, description="Step of relearning at which `after` is.")
    n: Count | None = Field(default=None, description="Number of questions or pictures.")


class AttackRow(Part):
    """An attack with one budget."""

    attack: Short = Field(description="Attack or chain of attacks, as after `--attack`.")
    access: tuple[Short, ...] = Field(default=(), description="black_box or white_box, if known.")
    budget: dict[Short, Text] = Field(default={}, description="All its fields, as text.")
    reads: Short = Field(description="What is scored: a measure, answers, or a number's name.")
    models: dict[Short, AttackScore] = Field(
        description="By model, about the forgotten: unlearned, references and target."
    )


class AttackSet(Part):
    """The attacks that were run, and those that were not."""

    run: tuple[AttackRow, ...] = Field(default=(), description="Attacks with budget and outcome.")
    not_run: tuple[Short, ...] = Field(
        default=(), description="Registered attacks that were not run."
    )


class Test(Part):
    """A two one-sided test (TOST) of a measure against a model that never saw the people."""

    attack: Short = Field(description="The attack; empty before any attack.")
    step: Count | None = Field(default=None, description="Step of a relearning attack.")
    measure: Short = Field(description="Key of the measure, or what the attack reads.")
    outcome: Literal["indistinguishable", "distinguishable", "too_few"] = Field(
        description="As in the record."
    )
    side: Literal["above", "below"] = Field(description="Side of the reference.")
    difference: Real | None = Field(default=None, description="Mean difference, -1..1.")
    low: Real | None = Field(default=None, description="Lower end of its 90 % interval.")
    high: Real | None = Field(default=None, description="Upper end of its 90 % interval.")
    margin: Real = Field(description="Difference below which two scores count as equal.")
    p: Real | None = Field(default=None, description="The larger p-value of the two tests.")
    people: Count = Field(description="Number of people.")
    needed: Count | None = Field(default=None, description="People that would decide the test.")


class EquivalenceStatement(Part):
    """Whether the model can be told from one that never saw the people."""

    outcome: Literal[
        "indistinguishable", "distinguishable", "too_few", "not_tested", "not_applicable"
    ] = Field(
        description="Of all tests together; not_applicable where the record bars a judgement, as "
        "for a broken model."
    )
    statement: Text = Field(description="In words, with margin and budget, or with what failed.")
    tests: tuple[Test, ...] = Field(default=(), description="Every test.")


class Verdict(Part):
    """The verdict on the record, made again from its numbers."""

    level: Literal["good", "warn", "bad", "unknown"] = Field(description="Level of the verdict.")
    headline: Short = Field(description="The verdict in a few words.")
    sentence: Text = Field(description="The verdict in a sentence.")


class ResidualRisk(Part):
    """The risk that remains, derived from the record."""

    level: Literal["bounded", "found", "unknown"] = Field(
        description="bounded: no attack that was run told the model from one that never saw the "
        "people, within the margin; found: something did; unknown: the record cannot say."
    )
    statements: tuple[Text, ...] = Field(description="In plain words.")


class Software(Part):
    """Software and hardware of the run, and the version that wrote the certificate."""

    certificate_by: Short = Field(description="Version of unsee that wrote the certificate.")
    unsee: Short | None = Field(default=None, description="Version of unsee that made the run.")
    commit: Short | None = Field(default=None, description="Its commit, if known.")
    dirty: Flag | None = Field(default=None, description="Whether that had uncommitted changes.")
    python: Short | None = Field(default=None, description="Version of Python.")
    torch: Short | None = Field(default=None, description="Version of PyTorch.")
    transformers: Short | None = Field(default=None, description="Version of transformers.")
    platform: Short | None = Field(default=None, description="Operating system.")
    device: Short | None = Field(default=None, description="Device of the model.")
    seed: Count | None = Field(default=None, description="Seed of the run.")


class Signer(Part):
    """The key that signed."""

    algorithm: Literal["Ed25519"] = Field(default="Ed25519", description="Always Ed25519.")
    public_key: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$")] = Field(
        description="The 32 bytes of the public key, in base64. It proves nothing by itself: "
        "compare it with a key that the signer gave you."
    )


class Certificate(Part):
    """The content of `certificate.json`."""

    schema_: Literal[1] = Field(
        default=SCHEMA, alias="schema", description="Version of this schema."
    )
    kind: Literal["unsee certificate"] = Field(default=KIND, description="Always the same.")
    issued: Time = Field(description="When the certificate was made.")
    request: Request = Field(description="The request that the run answers.")
    run: RunFacts = Field(description="The run and its record.")
    base: Checkpoint = Field(description="The model before.")
    result: Result = Field(description="The model after.")
    changes: Changes = Field(description="What changed.")
    verdict: Verdict = Field(description="The verdict on the record.")
    measures: tuple[MeasureRow, ...] = Field(description="All measures.")
    attacks: AttackSet = Field(description="All attacks.")
    equivalence: EquivalenceStatement = Field(description="The tests of equivalence.")
    residual_risk: ResidualRisk = Field(description="What may still be found out.")
    limits: tuple[Text, ...] = Field(description="What the certificate does not say.")
    software: Software = Field(description="Software and hardware.")
    verify: tuple[Text, ...] = Field(description="Commands that check the certificate again.")
    signer: Signer | None = Field(default=None, description="Who signed; null if nobody did.")
    signature: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{86}==$")] | None = Field(
        default=None,
        description="Ed25519 signature, in base64, over all other keys as RFC 8785 canonical JSON.",
    )

    def to_dict(self) -> dict[str, Any]:
        """The certificate as JSON has it, every key included."""
        return self.model_dump(mode="json", by_alias=True)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of `certificate.json`, with a description of every key."""
    schema = Certificate.model_json_schema(by_alias=True, mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **schema,
    }
