from geoloc_core.cli import main

main()
