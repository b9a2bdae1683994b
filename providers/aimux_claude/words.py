"""What a person does to add an account, in the vendor's words."""

from __future__ import annotations

LOGIN_WORDS = {
    "browser": (
        "claude.ai opens. Sign in with the account that has the Pro, Max, Team or Enterprise plan, choose the "
        "organization if you are asked, and press Authorize. The page then shows an authentication code: copy "
        "all of it, the part behind # included."
    ),
    "setup_token": (
        "Run claude setup-token where Claude Code is installed, and authorize in the browser that opens. It "
        "prints a token that begins with sk-ant-oat01-. It is good for a year and is not renewed."
    ),
    "api_key": (
        "In the Claude Console (platform.claude.com) under API keys: Create Key. It begins with "
        "sk-ant-api03-, is shown once, and is billed by use."
    ),
    "file": (
        "Claude Code keeps its login in ~/.claude/.credentials.json; on macOS in the keychain, from where "
        "aimux import takes it. Claude Code and aimux would log each other out by renewing it apart: log in "
        "anew for one of them."
    ),
}
