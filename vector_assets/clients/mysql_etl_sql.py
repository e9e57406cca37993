"""Schema `dbms_etl` as SQL, for MySQL 8 and MariaDB: the procedures that take links, refuse malformed ones, and change
their state. They run with the rights of who calls them, so nobody links a table that they cannot see.

The rules and the words are those of `declare/autoetl_map.py`. Messages end after 128 characters, as SIGNAL wants.
"""

SCHEMA = "dbms_etl"
TABLE = "sync_links"
MOST_MESSAGE = 128
"""Characters of a message of SIGNAL."""

_NAME = """[^[:space:].,()="''`]+"""
_PLACE = f"{_NAME}[.]{_NAME}[.]{_NAME}"
_SPACE = "[[:space:]]*"
_FIELD = f"^{_NAME}[.]{_NAME}{_SPACE}[(]{_SPACE}{_PLACE}{_SPACE}[)]$"
_KEY = f"^{_NAME}[.]{_NAME}{_SPACE}={_SPACE}{_PLACE}$"
_TEXT = "LONGTEXT CHARACTER SET utf8mb4"

TABLES = f"""
CREATE TABLE IF NOT EXISTS {SCHEMA}.{TABLE} (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  index_name VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  fields {_TEXT} NOT NULL,
  join_keys {_TEXT} NOT NULL,
  state VARCHAR(10) NOT NULL DEFAULT 'RUNNING',
  live VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin UNIQUE COMMENT 'index_name until it is dropped',
  asked_by VARCHAR(300) NOT NULL,
  asked_at DATETIME NOT NULL,
  changed_at DATETIME NOT NULL,
  status {_TEXT} COMMENT 'what is wrong with it')
"""

_REFUSE = """
(IN message LONGTEXT CHARACTER SET utf8mb4) SQL SECURITY INVOKER
BEGIN
  DECLARE shown VARCHAR(128) CHARACTER SET utf8mb4 DEFAULT LEFT(message, 128);
  SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = shown;
END
"""

_READ_ITEM = f"""
(IN argument INT, IN content {_TEXT}, IN number INT, OUT the_index {_TEXT}, OUT the_field {_TEXT},
 OUT the_database {_TEXT}, OUT the_table {_TEXT}, OUT the_column {_TEXT}) SQL SECURITY INVOKER
BEGIN
  DECLARE item, flat {_TEXT};
  SET item = REGEXP_REPLACE(SUBSTRING_INDEX(SUBSTRING_INDEX(content, ',', number), ',', -1),
                            '^[[:space:]]+|[[:space:]]+$', '');
  IF NOT item REGEXP IF(argument = 2, '{_FIELD}', '{_KEY}') THEN
    CALL dbms_etl.refuse(CONCAT('argument ', argument, ', item ', number, ': want ',
      IF(argument = 2, 'index.field(database.table.column)', 'index.field=database.table.column'), ', found ',
      IF(item = '', 'nothing', LEFT(item, 40))));
  END IF;
  SET flat = REGEXP_REPLACE(REPLACE(REPLACE(item, '(', '.'), '=', '.'), '[[:space:])]', '');
  SET the_index = SUBSTRING_INDEX(flat, '.', 1);
  SET the_field = SUBSTRING_INDEX(SUBSTRING_INDEX(flat, '.', 2), '.', -1);
  SET the_database = SUBSTRING_INDEX(SUBSTRING_INDEX(flat, '.', 3), '.', -1);
  SET the_table = SUBSTRING_INDEX(SUBSTRING_INDEX(flat, '.', 4), '.', -1);
  SET the_column = SUBSTRING_INDEX(flat, '.', -1);
END
"""

_CHECK_COLUMN = f"""
(IN argument INT, IN number INT, IN the_database {_TEXT}, IN the_table {_TEXT}, IN the_column {_TEXT})
SQL SECURITY INVOKER
BEGIN
  DECLARE place {_TEXT} DEFAULT CONCAT('argument ', argument, ', item ', number, ': ');
  IF NOT EXISTS (SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = the_database
                 AND TABLE_NAME = the_table AND TABLE_TYPE = 'BASE TABLE') THEN
    CALL dbms_etl.refuse(CONCAT(place, 'there is no table ', the_database, '.', the_table));
  END IF;
  IF NOT EXISTS (SELECT 1 FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = the_database
                 AND TABLE_NAME = the_table AND COLUMN_NAME = the_column) THEN
    CALL dbms_etl.refuse(CONCAT(place, the_database, '.', the_table, ' has no column ', the_column));
  END IF;
END
"""

_CHECK_TABLE = f"""
(IN the_database {_TEXT}, IN the_table {_TEXT}, IN the_columns {_TEXT}, IN drives BOOLEAN) SQL SECURITY INVOKER
BEGIN
  DECLARE nullable {_TEXT};
  IF NOT EXISTS (
      SELECT INDEX_NAME FROM information_schema.STATISTICS
      WHERE TABLE_SCHEMA = the_database AND TABLE_NAME = the_table AND NON_UNIQUE = 0 GROUP BY INDEX_NAME
      HAVING SUM(SUB_PART IS NOT NULL) = 0 AND SUM(FIND_IN_SET(LOWER(COLUMN_NAME), LOWER(the_columns)) = 0) = 0) THEN
    CALL dbms_etl.refuse(CONCAT('argument 3: ', the_database, '.', the_table, ' has no unique key on ',
      REPLACE(the_columns, ',', ', '), ': several rows would be one document'));
  END IF;
  SELECT MIN(COLUMN_NAME) INTO nullable FROM information_schema.COLUMNS
  WHERE TABLE_SCHEMA = the_database AND TABLE_NAME = the_table AND IS_NULLABLE = 'YES'
  AND FIND_IN_SET(LOWER(COLUMN_NAME), LOWER(the_columns)) > 0;
  IF drives AND nullable IS NOT NULL THEN
    CALL dbms_etl.refuse(CONCAT('argument 3: ', the_database, '.', the_table, '.', nullable,
      ' may be NULL, which makes no _id'));
  END IF;
END
"""

_SYNC_BY_MAP = f"""
(IN target {_TEXT}, IN fields {_TEXT}, IN join_keys {_TEXT}, IN argument_4 {_TEXT}, IN argument_5 {_TEXT})
SQL SECURITY INVOKER
BEGIN
  DECLARE i, d, t, c, f, index_1, database_1, driving, key_column {_TEXT};
  DECLARE tables, driving_fields, pairs, seen, columns_of {_TEXT} DEFAULT '';
  DECLARE n, m, at_table INT DEFAULT 1;
  DECLARE most_fields, most_keys INT;
  IF NOT COALESCE(target, '') = BINARY 'search' THEN
    CALL dbms_etl.refuse(CONCAT('argument 1: want "search", found "', LEFT(COALESCE(target, ''), 40), '"'));
  END IF;
  IF COALESCE(argument_4, '') <> '' THEN
    CALL dbms_etl.refuse('argument 4 has to be empty: nothing is known that it could say');
  END IF;
  IF COALESCE(argument_5, '') <> '' THEN
    CALL dbms_etl.refuse('argument 5 has to be empty: nothing is known that it could say');
  END IF;
  SET fields = COALESCE(fields, ''), join_keys = COALESCE(join_keys, '');
  SET most_fields = CHAR_LENGTH(fields) - CHAR_LENGTH(REPLACE(fields, ',', '')) + 1;
  SET most_keys = CHAR_LENGTH(join_keys) - CHAR_LENGTH(REPLACE(join_keys, ',', '')) + 1;
  WHILE n <= most_fields DO
    CALL dbms_etl.read_item(2, fields, n, i, f, d, t, c);
    SET n = n + 1;
  END WHILE;
  SET n = 1;
  WHILE n <= most_keys DO
    CALL dbms_etl.read_item(3, join_keys, n, i, f, d, t, c);
    SET n = n + 1;
  END WHILE;
  CALL dbms_etl.read_item(2, fields, 1, index_1, f, database_1, t, c);
  SET n = 1;
  WHILE n <= most_fields + most_keys DO
    IF n <= most_fields THEN CALL dbms_etl.read_item(2, fields, n, i, f, d, t, c);
    ELSE CALL dbms_etl.read_item(3, join_keys, n - most_fields, i, f, d, t, c); END IF;
    IF BINARY i <> BINARY index_1 THEN
      CALL dbms_etl.refuse(CONCAT('argument ', IF(n <= most_fields, 2, 3), ', item ', IF(n <= most_fields, n,
        n - most_fields), ': index ', i, '; item 1 of argument 2 has ', index_1));
    END IF;
    IF BINARY d <> BINARY database_1 THEN
      CALL dbms_etl.refuse(CONCAT('argument ', IF(n <= most_fields, 2, 3), ', item ', IF(n <= most_fields, n,
        n - most_fields), ': database ', d, '; item 1 of argument 2 has ', database_1));
    END IF;
    SET n = n + 1;
  END WHILE;
  CALL dbms_etl.read_item(3, join_keys, 1, i, f, d, driving, c);
  SET n = 1;
  WHILE n <= most_keys DO
    CALL dbms_etl.read_item(3, join_keys, n, i, f, d, t, c);
    IF NOT FIND_IN_SET(BINARY t, BINARY tables) THEN SET tables = CONCAT_WS(',', NULLIF(tables, ''), t); END IF;
    IF BINARY t = BINARY driving THEN SET driving_fields = CONCAT_WS(',', NULLIF(driving_fields, ''), f); END IF;
    SET n = n + 1;
  END WHILE;
  SET n = 1;
  WHILE n <= most_fields DO
    CALL dbms_etl.read_item(2, fields, n, i, f, d, t, c);
    IF FIND_IN_SET(BINARY f, BINARY seen) THEN
      CALL dbms_etl.refuse(CONCAT('argument 2, item ', n, ': field ', f, ' is filled twice'));
    END IF;
    SET seen = CONCAT_WS(',', NULLIF(seen, ''), f);
    IF NOT FIND_IN_SET(BINARY t, BINARY tables) THEN
      CALL dbms_etl.refuse(CONCAT('argument 2, item ', n, ': argument 3 does not say by what ', d, '.', t,
        ' is joined'));
    END IF;
    IF FIND_IN_SET(BINARY f, BINARY driving_fields) THEN
      SET m = 1, key_column = NULL;
      WHILE key_column IS NULL DO
        CALL dbms_etl.read_item(3, join_keys, m, i, @dbms_etl_field, d, @dbms_etl_table, @dbms_etl_column);
        IF BINARY @dbms_etl_field = BINARY f AND BINARY @dbms_etl_table = BINARY driving THEN
          SET key_column = @dbms_etl_column;
        END IF;
        SET m = m + 1;
      END WHILE;
      IF BINARY t <> BINARY driving OR BINARY c <> BINARY key_column THEN
        CALL dbms_etl.refuse(CONCAT('argument 2, item ', n, ': field ', f, ' is the key, which argument 3 takes from ',
          d, '.', driving, '.', key_column));
      END IF;
    END IF;
    SET n = n + 1;
  END WHILE;
  SET n = 1;
  WHILE n <= most_keys DO
    CALL dbms_etl.read_item(3, join_keys, n, i, f, d, t, c);
    IF FIND_IN_SET(BINARY CONCAT(t, '.', f), BINARY pairs) THEN
      CALL dbms_etl.refuse(CONCAT('argument 3, item ', n, ': ', d, '.', t, ' has a column for ', f, ' already'));
    END IF;
    SET pairs = CONCAT_WS(',', NULLIF(pairs, ''), CONCAT(t, '.', f));
    IF NOT FIND_IN_SET(BINARY f, BINARY driving_fields) THEN
      CALL dbms_etl.refuse(CONCAT('argument 3, item ', n, ': field ', f, ' is no key of ', d, '.', driving,
        ', the first table'));
    END IF;
    SET n = n + 1;
  END WHILE;
  WHILE at_table <= CHAR_LENGTH(tables) - CHAR_LENGTH(REPLACE(tables, ',', '')) + 1 DO
    SET t = SUBSTRING_INDEX(SUBSTRING_INDEX(tables, ',', at_table), ',', -1), n = 1;
    WHILE n <= CHAR_LENGTH(driving_fields) - CHAR_LENGTH(REPLACE(driving_fields, ',', '')) + 1 DO
      SET f = SUBSTRING_INDEX(SUBSTRING_INDEX(driving_fields, ',', n), ',', -1);
      IF NOT FIND_IN_SET(BINARY CONCAT(t, '.', f), BINARY pairs) THEN
        CALL dbms_etl.refuse(CONCAT('argument 3: ', database_1, '.', t, ' has no column for ', f));
      END IF;
      SET n = n + 1;
    END WHILE;
    SET at_table = at_table + 1;
  END WHILE;
  SET n = 1;
  WHILE n <= most_fields DO
    CALL dbms_etl.read_item(2, fields, n, i, f, d, t, c);
    CALL dbms_etl.check_column(2, n, d, t, c);
    SET n = n + 1;
  END WHILE;
  SET n = 1;
  WHILE n <= most_keys DO
    CALL dbms_etl.read_item(3, join_keys, n, i, f, d, t, c);
    CALL dbms_etl.check_column(3, n, d, t, c);
    SET n = n + 1;
  END WHILE;
  SET at_table = 1;
  WHILE at_table <= CHAR_LENGTH(tables) - CHAR_LENGTH(REPLACE(tables, ',', '')) + 1 DO
    SET key_column = SUBSTRING_INDEX(SUBSTRING_INDEX(tables, ',', at_table), ',', -1), n = 1, columns_of = '';
    WHILE n <= most_keys DO
      CALL dbms_etl.read_item(3, join_keys, n, i, f, d, t, c);
      IF BINARY t = BINARY key_column THEN SET columns_of = CONCAT_WS(',', NULLIF(columns_of, ''), c); END IF;
      SET n = n + 1;
    END WHILE;
    CALL dbms_etl.check_table(database_1, key_column, columns_of, at_table = 1);
    SET at_table = at_table + 1;
  END WHILE;
  IF LOCATE('{{', index_1) = 0 AND (BINARY index_1 <> BINARY LOWER(index_1) OR LEFT(index_1, 1) IN ('-', '_', '+')
      OR index_1 REGEXP '[*?<>|#:/]' OR LOCATE(CHAR(92), index_1)) THEN
    CALL dbms_etl.refuse(CONCAT('argument 2, item 1: index ', index_1,
      ': want a lower-case name that begins with none of -_+ and has none of * ? < > | # : / ', CHAR(92)));
  END IF;
  IF EXISTS (SELECT 1 FROM dbms_etl.sync_links WHERE live = index_1) THEN
    CALL dbms_etl.refuse(CONCAT('index ', index_1, ' has a link already; CALL dbms_etl.drop_sync_link(''', index_1,
      ''') ends it'));
  END IF;
  INSERT INTO dbms_etl.sync_links (index_name, fields, join_keys, live, asked_by, asked_at, changed_at)
  VALUES (index_1, fields, join_keys, index_1, CURRENT_USER(), UTC_TIMESTAMP(), UTC_TIMESTAMP());
  SELECT LAST_INSERT_ID() AS id, index_1 AS link, 'RUNNING' AS state;
END
"""


def _changing(state: str, live: str) -> str:
    """The body of a procedure that changes the state of a link."""
    return f"""
(IN link {_TEXT}) SQL SECURITY INVOKER
BEGIN
  IF NOT EXISTS (SELECT 1 FROM dbms_etl.sync_links WHERE live = link) THEN
    CALL dbms_etl.refuse(CONCAT('there is no link of index ', COALESCE(LEFT(link, 40), 'NULL'),
      '; CALL dbms_etl.show_sync_link() lists them'));
  END IF;
  UPDATE dbms_etl.sync_links SET state = '{state}', live = {live}, changed_at = UTC_TIMESTAMP() WHERE live = link;
  SELECT link, '{state}' AS state;
END
"""


_SHOW = """
() SQL SECURITY INVOKER
SELECT id, index_name AS link, state, status, fields, join_keys, asked_by, asked_at FROM dbms_etl.sync_links
WHERE state <> 'DROPPED' ORDER BY id
"""

PROCEDURES = {
    "refuse": _REFUSE,
    "read_item": _READ_ITEM,
    "check_column": _CHECK_COLUMN,
    "check_table": _CHECK_TABLE,
    "sync_by_map": _SYNC_BY_MAP,
    "show_sync_link": _SHOW,
    "pause_sync_link": _changing("PAUSED", "live"),
    "resume_sync_link": _changing("RUNNING", "live"),
    "drop_sync_link": _changing("DROPPED", "NULL"),
}
"""Bodies by name, in the order in which they are made."""
