"""The command `snugnet`. Nothing is imported until it runs."""


def main() -> None:
    from service.cli.program import run

    run()
