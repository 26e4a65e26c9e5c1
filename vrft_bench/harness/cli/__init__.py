"""The command line: one typer app, a file per verb. A verb parses flags, calls the library and prints."""
