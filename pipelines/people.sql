-- Changes of people's profiles, kept as a searchable collection of Milvus: who is new is inserted, who changes is
-- replaced, who goes is deleted. This one belongs to `make demo`, too:
--
--     vector-assets preview people                  what would become of the next records; nothing is written
--     vector-assets run people                      read what the topic has now
--     vector-assets explain people --key '{"id": 7}'    where the row of person 7 comes from

-- The last record of a key is its row; a record without a value (a tombstone) deletes it. The values say what happened:
-- {"data": {"id": 7, "name": ...}, "op": "+I"}, where op is +I, -U and +U (before and after an update) or -D.
CREATE TEMPORARY TABLE people_changes (
  id BIGINT NOT NULL,
  name STRING,
  age INT,
  vec ARRAY<FLOAT>,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'upsert-kafka',
  'properties.bootstrap.servers' = '${secret_values.kafka_bootstrap_servers}',
  'topic' = 'people_changes',
  'key.format' = 'json',
  'value.format' = 'changelog-json',
  'value.fields-include' = 'ALL'
);

-- `vector-assets target create pipelines/people.sql` makes the collection from this table.
CREATE TEMPORARY TABLE searchable_people (
  id BIGINT NOT NULL,
  name VARCHAR(40),
  age INT,
  vec ARRAY<FLOAT>,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'milvus',
  'endpoint' = '${secret_values.milvus_endpoint}',
  'port' = '${secret_values.milvus_port}',
  'databaseName' = 'default',
  'collectionName' = 'people',
  'vector.dimensions' = 'vec:8',           -- a vector of another length becomes a dead letter
  'vector.metrics' = 'vec:COSINE',
  'sink.buffer-flush.max-rows' = '200',    -- rows of one request
  'sink.buffer-flush.interval' = '3s'      -- how long a change may wait for more of them
);

-- People with the vectors of their profiles, as they are now.
INSERT INTO searchable_people
SELECT id, name, age, vec
FROM people_changes;
