from typing import final

vector_path: str

@final
class Template:
    def __new__(cls, before: str, after: str) -> Template: ...
    def fill(self, data: bytes) -> str: ...
