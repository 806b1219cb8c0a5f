from edgekit.cli import program

program()
