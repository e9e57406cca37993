-- A partitioned MaxCompute table, followed: each partition is read once, as soon as it is complete, and its visits get the
-- name and the city of their customer. This one belongs to `make demo`, too:
--
--     vector-assets plan pipelines/visits.sql       what it compiles to
--     vector-assets run visits                      read what partitions there are now
--     vector-assets status visits                   partitions read, and which customers they were joined with
--
-- `vector-assets services up maxcompute` starts a MaxCompute that plain pyodps talks to; a partition that you write to
-- demo_visits is picked up while `make dev` runs.
CREATE TEMPORARY TABLE visit_log (
  id BIGINT,
  cid VARCHAR,
  page VARCHAR,
  rt DOUBLE,
  ds VARCHAR                                   -- the partition column
) WITH (
  'connector' = 'odps',
  'endpoint' = '${secret_values.maxcompute_endpoint}',
  'project' = '${secret_values.maxcompute_project}',
  'tableName' = 'demo_visits',
  'accessId' = '${secret_values.maxcompute_access_id}',
  'accessKey' = '${secret_values.maxcompute_access_key}',
  'startPartition' = 'ds=20260301',            -- this one and every later one
  'subscribeIntervalInSec' = '5',
  'vector-assets.partition.quiet' = '2 s'      -- complete when nothing of it has changed for so long
);

-- Who they are: the newest partition of a small table, kept in memory.
CREATE TEMPORARY TABLE customers (
  cid VARCHAR,
  name VARCHAR,
  city VARCHAR,
  PRIMARY KEY (cid) NOT ENFORCED
) WITH (
  'connector' = 'odps',
  'endpoint' = '${secret_values.maxcompute_endpoint}',
  'project' = '${secret_values.maxcompute_project}',
  'tableName' = 'demo_customers',
  'accessId' = '${secret_values.maxcompute_access_id}',
  'accessKey' = '${secret_values.maxcompute_access_key}',
  'partition' = 'max_pt()',
  'cache' = 'ALL',
  'cacheTTLMs' = '1000'                        -- look for a newer partition before a batch, once a second at most
);

CREATE TEMPORARY TABLE known_visits (
  id BIGINT,
  cid VARCHAR,
  name VARCHAR,
  city VARCHAR,
  page VARCHAR,
  rt DOUBLE,
  ds VARCHAR,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'adbpg',
  'url' = 'jdbc:postgresql://${secret_values.postgres_address}/visits',
  'tablename' = 'visits',
  'username' = '${secret_values.postgres_user}',
  'password' = '${secret_values.postgres_password}'
);

-- Visits with the name and the city of the customer, where the customer is known.
INSERT INTO known_visits
SELECT v.id, v.cid, c.name, c.city, v.page, v.rt, v.ds
FROM visit_log AS v
LEFT JOIN customers FOR SYSTEM_TIME AS OF PROCTIME() AS c ON v.cid = c.cid;
