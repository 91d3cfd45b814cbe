from bridged.cli.main import main

main()
