-- An index of OpenSearch kept as a table of MySQL, each document with the vector of its text, from one CALL. It belongs to
-- `make demo`. OpenSearch is large (440 MB are fetched once) and started only when it is named, so this script lies in a
-- folder of its own, which nothing reads unless it is named, too:
--
--     vector-assets services up mysql opensearch embeddings
--     vector-assets search-setup pipelines/_search/_setup.yaml
--     export VECTOR_ASSETS_PIPELINES=pipelines/_search
--     vector-assets run articles
--     vector-assets search articles --text 'an animal that sleeps all day' --k 3
--     make dev
SET 'mysql.hostname' = '${secret_values.mysql_host}';
SET 'mysql.port' = '${secret_values.mysql_port}';
SET 'mysql.username' = '${secret_values.mysql_user}';
SET 'mysql.password' = '${secret_values.mysql_password}';
SET 'search.hosts' = '${secret_values.opensearch_url}';

-- Fields of index articles from columns of wiki.articles; each document's _id is the row's id. The index's ingest pipeline
-- makes body_vector of body.
CALL dbms_etl.sync_by_map(
  "search",
  "articles.id(wiki.articles.id),articles.title(wiki.articles.title),articles.body(wiki.articles.body)",
  "articles.id=wiki.articles.id",
  "",
  ""
);
