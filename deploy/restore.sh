#!/bin/sh
# Bring back what backup.sh has saved: restore.sh FOLDER. Stop Dagster and MLflow first.
#
# The bucket comes first, so that no database names what is not there yet. Each database is replaced by the saved one as
# a whole: PostgreSQL refuses while anybody is connected to it, and the one that is there stays.
set -eu
export PGOPTIONS='-c client_min_messages=warning'
folder=${1:?usage: restore.sh FOLDER}
for database in "${DAGSTER_POSTGRES_DB:-dagster}" "${MLFLOW_POSTGRES_DB:-mlflow}"; do
    if [ ! -f "$folder/$database.dump" ]; then
        echo "geoloc: error: $folder/$database.dump: not there; expected a folder that backup.sh has made" >&2
        exit 2
    fi
done
if [ -d "$folder/bucket" ]; then
    python "$(dirname "$0")/store.py" load "$folder/bucket"
fi
for database in "${DAGSTER_POSTGRES_DB:-dagster}" "${MLFLOW_POSTGRES_DB:-mlflow}"; do
    dropdb --if-exists "$database.restored"  # of an attempt that was refused below
    createdb "$database.restored"
    pg_restore --no-owner --no-privileges --exit-on-error --single-transaction --dbname "$database.restored" "$folder/$database.dump"
done
for database in "${DAGSTER_POSTGRES_DB:-dagster}" "${MLFLOW_POSTGRES_DB:-mlflow}"; do
    dropdb --if-exists "$database"
    psql --quiet --dbname postgres --command "ALTER DATABASE \"$database.restored\" RENAME TO \"$database\""
done
echo "restored from $folder"
