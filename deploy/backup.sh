#!/bin/sh
# Copy both databases and the bucket of the store to a new folder: backup.sh FOLDER
#
# The databases come first. What they name is in the bucket before they name it, and nothing is taken out of a bucket
# while this runs, so all that they name is in the copy. The server is named as for psql (PGHOST, PGUSER, ...), the store
# as for boto3 (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...); GEOLOC_BUCKET="" leaves out a bucket that is copied otherwise.
set -eu
folder=${1:?usage: backup.sh FOLDER}
folder=${folder%/}
if [ -e "$folder" ]; then
    echo "geoloc: error: $folder: is there already; expected a folder to make" >&2
    exit 2
fi
umask 077
part=$folder.part
rm -rf "$part"
mkdir -p "$part"
for database in "${DAGSTER_POSTGRES_DB:-dagster}" "${MLFLOW_POSTGRES_DB:-mlflow}"; do
    pg_dump --format custom --no-owner --no-privileges --file "$part/$database.dump" "$database"
done
if [ -n "${GEOLOC_BUCKET-geoloc}" ]; then
    python "$(dirname "$0")/store.py" save "$part/bucket"
fi
mv "$part" "$folder"
echo "saved in $folder"
