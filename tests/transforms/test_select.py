import pytest

from vector_assets.transforms.select import Select

COMPUTED = '(SELECT *, CAST(t AS INT) AS "c", upper(u) AS "d" FROM source)'


def test_computed_columns_move_into_the_expressions_that_name_them() -> None:
    select = Select((("c + 1", "x"), ('source."C"', "y"), ("t", "z")), COMPUTED, "d = 'A'").inlined()
    assert select.relation == "source"
    assert select.projections == (("(CAST(t AS INT)) + 1", "x"), ("(CAST(t AS INT))", "y"), ("t", "z"))
    assert select.where == "(UPPER(u)) = 'A'"


@pytest.mark.parametrize(
    "relation",
    [
        "(SELECT *, c FROM source WHERE c > 1)",
        "(SELECT a AS c FROM source)",
        "(SELECT *, 1 AS c FROM other)",
        "(SELECT DISTINCT *, 1 AS c FROM source)",
        "(SELECT *, row_number() OVER () AS c FROM source LIMIT 1)",
        "(SELECT *, 1 AS c FROM source, source AS b)",
        "range(5)",
        "(((",
    ],
)
def test_any_other_relation_stays(relation: str) -> None:
    select = Select((("c", "x"),), relation, None)
    assert select.inlined() == select
    assert not select.is_row_wise
