"""A small shop: Flask and SQLAlchemy on SQLite, like many services.

Every request runs SQLAlchemy's compiled extensions, and a client can compute the
expected response, so a wrong byte anywhere shows.
"""

import os

from flask import Flask, Response, jsonify
from shop import CUSTOMERS, ORDERS_PER_CUSTOMER, cents_of
from sqlalchemy import ForeignKey, create_engine, event, func, select
from sqlalchemy.engine import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload
from sqlalchemy.util import has_compiled_ext

if not has_compiled_ext():
    raise RuntimeError("SQLAlchemy runs without its compiled extensions: there is nothing to protect here")


class Base(DeclarativeBase):
    """The base class of the tables."""


class Customer(Base):
    """A customer who places orders."""

    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    orders: Mapped[list["Order"]] = relationship(order_by="Order.id")


class Order(Base):
    """An order; the amount is in cents."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"))
    cents: Mapped[int]


engine: Engine = create_engine("sqlite:///" + os.environ.get("DEMO_DATABASE", "shop.sqlite"))


@event.listens_for(engine, "connect")
def do_not_wait_for_the_disk(connection, _record) -> None:  # noqa: ANN001
    """Turns off waiting for the disk, because the demonstration does not need durability."""
    connection.execute("PRAGMA synchronous = OFF")


def create_database() -> None:
    """Fills the database. This happens once, before the server starts."""
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        for number in range(1, CUSTOMERS + 1):
            orders = [Order(cents=cents_of(number, order)) for order in range(ORDERS_PER_CUSTOMER)]
            session.add(Customer(id=number, name=f"customer {number}", orders=orders))
        session.commit()


app = Flask(__name__)


@app.get("/customer/<int:number>")
def customer(number: int) -> Response:
    """Returns one customer with all orders, and their sum as the database computes it."""
    with Session(engine) as session:
        query = select(Customer).options(selectinload(Customer.orders)).where(Customer.id == number)
        found = session.scalars(query).one()
        total = session.scalar(select(func.sum(Order.cents)).where(Order.customer_id == number))
        return jsonify(
            name=found.name,
            orders=[order.cents for order in found.orders],
            total=total,
            worker=os.getpid(),
        )


if __name__ == "__main__":
    create_database()
