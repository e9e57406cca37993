-- A pipeline is a Flink SQL script: a table for what is read, a table for what is written, and one INSERT between them.
-- This one belongs to `make demo`. Try it by hand, too:
--
--     vector-assets plan pipelines/car_info.sql     check it and show what it compiles to; nothing is changed
--     vector-assets run car_info                    read what the topic has now
--     make dev                                      see the asset, its sensor and its checks in Dagster's UI
--
-- ${secret_values.x} stands for a value that does not belong in a file: the environment variable
-- VECTOR_ASSETS_SECRET_X, or what `vector-assets services up` published for the embedded services.

-- Cars as their makers announce them: one line per car, its values separated by tabs, the picture's vector as {0.1,0.2}.
CREATE TEMPORARY TABLE announced_cars (
  id INT,                    -- the table's id is a bigint; one that does not fit here becomes a dead letter, never wraps
  market_time TIMESTAMP,
  color VARCHAR(10),
  price INT,
  feature STRING
) WITH (
  'connector' = 'kafka',
  'properties.bootstrap.servers' = '${secret_values.kafka_bootstrap_servers}',
  'topic' = 'vector_ingest',
  'format' = 'csv',
  'csv.field-delimiter' = '\t',
  'scan.startup.mode' = 'earliest-offset'    -- where a new pipeline starts; later only `vector-assets reset` moves it
);

-- The searchable table. Its vector index says how many numbers a feature must have.
CREATE TEMPORARY TABLE searchable_cars (
  id INT,
  market_time TIMESTAMP,
  color VARCHAR(10),
  price INT,
  feature VARCHAR            -- the text of the vector: it is checked, then written as the column's own type
) WITH (
  'connector' = 'adbpg-nightly-1.13',
  'url' = 'jdbc:postgresql://${secret_values.postgres_address}/adbpg_test',
  'targetschema' = 'vector_test',
  'tablename' = 'car_info',
  'username' = '${secret_values.postgres_user}',
  'password' = '${secret_values.postgres_password}',
  'writemode' = '1',                -- COPY
  'conflictmode' = 'ignore',        -- the first row of a key stays; later ones are counted as conflicts
  'exceptionmode' = 'ignore',       -- a row the database refuses becomes a dead letter; the others land
  'batchsize' = '3000',             -- rows of one COPY
  'batchwritetimeoutms' = '10000'   -- how long a batch that is not full may wait for more records
);

-- Cars with the vectors of their pictures, to be searched by likeness and by price, color and time.
-- Everything between SELECT and the semicolon runs on each batch: rename, compute, cast and filter here.
INSERT INTO searchable_cars
SELECT id, market_time, color, price, feature
FROM announced_cars;
