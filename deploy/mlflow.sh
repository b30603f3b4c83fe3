#!/bin/sh
# MLflow's server with users and passwords, which it keeps beside the runs; the rest it takes from the environment.
set -eu
umask 077
MLFLOW_AUTH_CONFIG_PATH=$(mktemp)
export MLFLOW_AUTH_CONFIG_PATH
# a percent sign would begin a reference in such a file
cat > "$MLFLOW_AUTH_CONFIG_PATH" <<END
[mlflow]
default_permission = EDIT
database_uri = $(printf %s "${MLFLOW_BACKEND_STORE_URI:?}" | sed 's/%/%%/g')
admin_username = admin
auth_cache_ttl_seconds = 60
END
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false  # seven processes for evaluations of chat applications
exec mlflow server --app-name basic-auth --serve-artifacts
