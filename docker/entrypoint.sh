#!/bin/sh
# web | worker | beat | manage COMMAND...: runs one program of `manage.py up` per container.
set -eu
case "${1:-web}" in
    web | worker | beat)
        exec python -m codexflow.programs "${1:-web}"
        ;;
    manage)
        shift
        exec python manage.py "$@"
        ;;
    *)
        echo "usage: web | worker | beat | manage COMMAND..." >&2
        exit 2
        ;;
esac
