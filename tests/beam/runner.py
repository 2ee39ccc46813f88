"""Where the pipelines of the tests run: in this process, without a download."""

OPTIONS = ["--runner=FnApiRunner"]
