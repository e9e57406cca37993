"""What does not fit is found before the first row, each with its own message."""

from dataclasses import replace

import pyarrow as pa
import pytest

from vector_assets.clients.milvus import Collection, Field, Server
from vector_assets.engine.errors import PlanError
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.sinks.milvus_options import MilvusOptions
from vector_assets.sinks.milvus_plan import make_plan

ID = Field("id", "Int64", is_key=True)
NAME = Field("name", "VarChar", max_length=20)
VEC = Field("vec", "FloatVector", dimension=3)
SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string()), ("vec", pa.list_(pa.float32()))])


def options(**given: str) -> MilvusOptions:
    base = {"connector": "milvus", "endpoint": "host", "collectionName": "people"}
    return MilvusOptions.parse({**base, **{k.replace("__", "."): v for k, v in given.items()}}, "connector milvus")


def plan(*fields: Field, schema=SCHEMA, key=(), version="v2.5.4", table=None, partitions=("_default",), **given: str):
    collection = Collection("people", 7, fields or (ID, NAME, VEC))
    return make_plan(collection, partitions, Server(version), schema, key, options(**given), table)


def column(name: str, kind: pa.DataType) -> pa.Schema:
    place = SCHEMA.get_field_index(name)
    return SCHEMA.set(place, pa.field(name, kind))


def test_a_fitting_collection_has_nothing_to_say():
    made = plan(key=("id",))
    assert [field.name for field in made.fields] == ["id", "name", "vec"]
    assert (made.key.name, made.partition, made.replaces, made.notes) == ("id", None, False, ())


PARTED = replace(NAME, is_partition_key=True)


@pytest.mark.parametrize(
    ("fields", "given", "said"),
    [
        ((replace(ID, type="Int32"), NAME, VEC), {}, "primary key id is Int32, wanted Int64 or VarChar"),
        ((replace(ID, is_auto=True), NAME, VEC), {}, "AUTO_ID on"),
        ((ID, NAME), {}, "vector field vec does not exist; fields there: id, name"),
        ((ID, NAME, VEC, replace(VEC, name="other")), {}, r"vector field other \(FloatVector\(3\)\) takes no nulls"),
        ((ID, NAME, replace(VEC, dimension=None)), {}, "the dimension of vector field vec .FloatVector. is unknown"),
        ((), {"vector__dimensions": "vec:4"}, r"vec is FloatVector\(3\), option 'vector.dimensions' says 4"),
        ((), {"vector__dimensions": "name:4"}, "names name, which is no vector"),
        ((), {"schema": column("vec", pa.list_(pa.float32(), 5))}, "the pipeline sends 5"),
        ((), {"partitionName": "other"}, "partition other does not exist; partitions there: _default"),
        ((), {"partitionKey__enabled": "true"}, "no partition key configured"),
        ((ID, PARTED, VEC), {"partitionName": "_default"}, "'partitionName' cannot choose a partition"),
        ((ID, PARTED, VEC), {"partitionKey__enabled": "true", "partitionKey__field": "id"}, "partition key is name"),
        ((ID, NAME, VEC, Field("age", "Int32")), {}, r"field age \(Int32\) takes no nulls and has no default"),
        ((), {"key": ("name",)}, r"PRIMARY KEY \(name\) is declared, the collection's key is id"),
        ((), {"key": ("id", "name")}, r"PRIMARY KEY \(id, name\) is declared"),
        ((), {"schema": SCHEMA.remove(0)}, "the key id is not among the columns sent: name, vec"),
        (
            (),
            {"schema": column("name", pa.date32())},
            r"name is VarChar\(20\), which takes STRING; the pipeline sends DATE",
        ),
        (
            (),
            {"schema": column("vec", pa.list_(pa.string()))},
            r"vec is FloatVector\(3\), which takes ARRAY of numbers",
        ),
        ((ID, Field("name", "Geometry"), VEC), {}, "has the type Geometry, which cannot be written"),
        ((ID, replace(NAME, is_output=True), VEC), {}, "filled by a function of the server"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_misfit_has_its_own_message(fields, given, said):
    with pytest.raises(PlanError, match=said):
        plan(*fields, **given)


def test_each_of_two_vectors_is_checked():
    schema = SCHEMA.append(pa.field("other", pa.list_(pa.float64())))
    fields = (ID, NAME, VEC, replace(VEC, name="other", dimension=8))
    assert len(plan(*fields, schema=schema, vector__dimensions="vec:3,other:8").fields) == 4
    with pytest.raises(PlanError, match=r"other is FloatVector\(8\), option 'vector.dimensions' says 9"):
        plan(*fields, schema=schema, vector__dimensions="vec:3,other:9")


def test_a_text_that_is_declared_longer_than_its_field_is_refused_and_one_without_length_is_noted():
    def table(length):
        return Table("people", (Column("name", LogicalType("VARCHAR", length)),))

    with pytest.raises(PlanError, match=r"name is VarChar\(20\), too short for VARCHAR\(21\)"):
        plan(table=table(21))
    assert plan(table=table(20)).notes == ()
    assert plan(table=table(None)).notes == ("name: a text over 20 bytes becomes a dead letter",)


@pytest.mark.parametrize(
    ("version", "is_noted"), [("v2.3.5", True), ("v2.4.0", False), ("2.6.1", False), ("milvus_lite-3.2.2", False)]
)
def test_a_server_before_2_4_is_a_named_warning(version, is_noted):
    notes = plan(version=version).notes
    assert any(note.startswith("MILVUS_BELOW_2_4") for note in notes) == is_noted


@pytest.mark.parametrize(("version", "replaces"), [("v2.3.5", True), ("v2.4.0", False), ("milvus_lite-3.2.2", False)])
def test_old_servers_write_routed_rows_by_delete_and_insert(version, replaces):
    assert plan(ID, PARTED, VEC, version=version, partitionKey__enabled="true").replaces is replaces
    assert plan(version=version).replaces is False


def test_a_partition_key_that_the_options_do_not_name_is_noted():
    assert plan(ID, PARTED, VEC).notes == (
        "the server routes rows by the partition key name, whatever 'partitionKey.enabled' says",
    )


def test_fields_that_take_care_of_themselves_may_be_left_out():
    extra = (Field("a", "Int32", nullable=True), Field("b", "Int32", has_default=True))
    assert len(plan(ID, NAME, VEC, *extra).fields) == 3
