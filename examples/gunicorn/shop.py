"""The numbers in the shop's database, for the service that stores them and the load
generator that checks them."""

CUSTOMERS = 20
ORDERS_PER_CUSTOMER = 10


def cents_of(customer: int, order: int) -> int:
    """Returns the amount of an order in cents."""
    return customer * 1000 + order * 7


def expected_answer(number: int) -> dict[str, object]:
    """Returns the response that the service must send for a customer."""
    orders = [cents_of(number, order) for order in range(ORDERS_PER_CUSTOMER)]
    return {"name": f"customer {number}", "orders": orders, "total": sum(orders)}
