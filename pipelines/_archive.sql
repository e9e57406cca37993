-- The Paimon database of pipelines/orders.yaml, in the store of `vector-assets services up s3`. A Paimon database is never
-- made by itself: this statement says what it is, its directory must be there, and its name on the next line is noted by
--
--     vector-assets target create pipelines/_archive.sql
--
-- (`make demo` has done so.) Files whose names begin with _ hold no pipelines.
CREATE EXTERNAL DATABASE archive WITH DBPROPERTIES (
  catalog = 'paimon',
  adb.paimon.warehouse = 's3://lake/demo',
  LOCATION = 's3://lake/demo/archive.db/',
  s3.endpoint = '${secret_values.s3_endpoint}',
  s3.access-key = '${secret_values.s3_access_key}',
  s3.secret-key = '${secret_values.s3_secret_key}',
  s3.region = 'us-east-1',
  s3.path.style.access = 'true'
);
