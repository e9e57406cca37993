-- A running total over the same partitions: how often each customer came, kept right in a table with a key. The totals lie
-- beside the ledger and move with its position, so a visit is counted once whatever crashes. It belongs to `make demo`, too:
--
--     vector-assets run visit_counts
--     vector-assets status visit_counts --batches 5
CREATE TEMPORARY TABLE odps_source (
  cid VARCHAR,
  rt DOUBLE
) WITH (
  'connector' = 'odps',
  'endpoint' = '${secret_values.maxcompute_endpoint}',
  'project' = '${secret_values.maxcompute_project}',
  'tableName' = 'demo_visits',
  'accessId' = '${secret_values.maxcompute_access_id}',
  'accessKey' = '${secret_values.maxcompute_access_key}',
  'startPartition' = 'ds=20260301',
  'subscribeIntervalInSec' = '5',
  'vector-assets.partition.quiet' = '2 s'
);

CREATE TEMPORARY TABLE counts (
  cid VARCHAR,
  invoke_count BIGINT,
  PRIMARY KEY (cid) NOT ENFORCED
) WITH (
  'connector' = 'adbpg',
  'url' = 'jdbc:postgresql://${secret_values.postgres_address}/visits',
  'tablename' = 'visit_counts',
  'username' = '${secret_values.postgres_user}',
  'password' = '${secret_values.postgres_password}',
  'conflictmode' = 'upsert'                    -- a total replaces the one before it
);

-- How often each customer came.
INSERT INTO counts
SELECT cid, COUNT(*) AS invoke_count
FROM odps_source
GROUP BY cid;
