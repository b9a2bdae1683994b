"""What a person does to add an account, in the vendor's words."""

from __future__ import annotations

LOGIN_WORDS = {
    "browser": (
        "The sign-in page of OpenAI opens. Sign in to ChatGPT with the Plus, Pro, Business or Enterprise "
        "account, choose the workspace and press Continue. Your browser then ends at an address of "
        "localhost:1455 that can't be reached: that is right. Copy the whole address out of the address bar."
    ),
    "device": (
        "First allow it in ChatGPT: Settings, Security, Enable device code authorization for Codex. Then open "
        "the page below on any device, sign in, and type the code."
    ),
    "api_key": (
        "On platform.openai.com under API keys: Create new secret key. It begins with sk-, is shown once, and "
        "is billed by use. It serves the SDKs' calls as well, which a ChatGPT subscription does not."
    ),
    "file": (
        "Codex keeps its login in ~/.codex/auth.json. Codex and aimux would log each other out by renewing it "
        "apart: log in anew for one of them."
    ),
}
