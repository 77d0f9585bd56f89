#!/bin/sh
# web | worker | beat: runs one program per container. setup: migrates and seeds, once for each release, before they start.
# manage COMMAND...: runs a command of manage.py.
set -eu
case "${1:-web}" in
    web | worker | beat)
        exec python -m codexflow.programs "${1:-web}"
        ;;
    setup)
        python manage.py migrate --noinput
        exec python manage.py seed
        ;;
    manage)
        shift
        exec python manage.py "$@"
        ;;
    *)
        echo "usage: web | worker | beat | setup | manage COMMAND..." >&2
        exit 2
        ;;
esac
