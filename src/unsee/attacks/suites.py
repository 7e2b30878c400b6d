"""Named suites of attacks, which `--attack` and recipes take in place of one."""

from __future__ import annotations

# Every registered attack, with budgets that differ in what the attacker has and may train.
STANDARD = (
    "relearn?share=0.2",
    "relearn?share=0.2&modules=all",
    "relearn?share=0.2&worst_case=quick",
    "relearn?data=retain&share=1&worst_case=quick",
    "relearn?data=held_out_people&share=0.5",
    "relearn?data=other_pictures&share=0.2",
    "adaptive",
    "quantize?bits=8",
    "quantize?bits=4",
    "probe",
    "prototype",
    "difference?against=[kept,strangers]",
    "cross_modal",
    "rephrase_image",
    "perturb",
    "visual_prompt",
    "jailbreak",
    "in_context",
    "answer_prefix",
    "figstep",
    "membership",
    "relearn_features",
)

# By name: attacks or chains as they are typed. "all" is no suite, but every registered attack once.
SUITES = {"standard": STANDARD}
