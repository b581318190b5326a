#!/usr/bin/env bash
# Creates the two roles when the database is created: vote_worker, which creates and fills the tables, and vote_results,
# which only reads them. The image runs it once, on an empty volume.
set -euo pipefail
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
\set worker `cat /run/secrets/postgres_worker_password`
\set results `cat /run/secrets/postgres_results_password`
CREATE ROLE vote_worker LOGIN PASSWORD :'worker';
CREATE ROLE vote_results LOGIN PASSWORD :'results';
ALTER ROLE vote_results SET default_transaction_read_only = on;
REVOKE ALL ON DATABASE :DBNAME FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT CONNECT, CREATE ON DATABASE :DBNAME TO vote_worker;
GRANT CONNECT ON DATABASE :DBNAME TO vote_results;
ALTER DEFAULT PRIVILEGES FOR ROLE vote_worker GRANT USAGE ON SCHEMAS TO vote_results;
ALTER DEFAULT PRIVILEGES FOR ROLE vote_worker GRANT SELECT ON TABLES TO vote_results;
SQL
