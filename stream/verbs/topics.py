"""`fraudstream topics`: create them as they should be, and show how they are."""

# Imported when it runs, so that --help is fast.
# ruff: noqa: PLC0415

import click

from stream.verbs.invocation import Invocation, example, passed


@click.group(epilog=example("fraudstream topics create", "fraudstream topics show"))
def topics() -> None:
    """Create the topics with the right settings, or show them."""


@topics.command(epilog=example("fraudstream topics create --partitions 12 --replicas 3"))
@click.option(
    "--partitions",
    type=click.IntRange(1),
    metavar="N",
    default=12,
    show_default=True,
    help="Partitions of each topic but the monitor's own.",
)
@click.option(
    "--replicas", type=click.IntRange(1), metavar="N", help="Copies of each partition.  [default: the broker's own]"
)
@passed
def create(invocation: Invocation, partitions: int, replicas: int | None) -> None:
    """Create the topics that do not exist; leave the others as they are.

    The worker's get the same number of partitions: a decision stands on its transaction's partition number, and
    workers share partitions among them. Choose enough for the future, because a user's history stays on the partition
    it was written to. What the monitor keeps in order (labelled, telemetry, alerts) has one.
    """
    from confluent_kafka.admin import AdminClient

    from stream.clients import admin_config
    from stream.topics import create_topics, describe_cluster, plan_topics, plan_watch_topics

    settings = invocation.real_broker("topics create")
    admin = AdminClient(admin_config(settings))
    describe_cluster(admin)
    plans = plan_topics(settings, partitions, replicas=replicas or -1)
    plans += plan_watch_topics(settings, partitions, replicas=replicas or -1)
    created = create_topics(admin, plans, replicas=replicas or -1)
    width = max(len(plan.name) for plan in plans)
    for plan in plans:
        what = "created" if plan.name in created else "exists, left as it is"
        click.echo(f"{plan.name:{width}}  {what}")


@topics.command(epilog=example("fraudstream topics show"))
@passed
@click.pass_context
def show(ctx: click.Context, invocation: Invocation) -> None:
    """Show the topics and what is wrong with them.

    Exit code 1 where a worker could not start.
    """
    from confluent_kafka.admin import AdminClient

    from stream.clients import admin_config
    from stream.topic_check import check_topics
    from stream.topic_table import topic_table
    from stream.topics import describe_cluster, describe_topics, topic_names

    settings = invocation.real_broker("topics show")
    admin = AdminClient(admin_config(settings))
    describe_cluster(admin)
    names = topic_names(settings)
    described = describe_topics(admin, names.values())
    for line in topic_table([described[name] for name in names.values()]):
        click.echo(line)
    findings = check_topics({role: described[name] for role, name in names.items()}, int(settings.state.retention))
    for finding in findings:
        click.echo(f"\n{'FAIL' if finding.fatal else 'WARN'}  {finding.sentence}")
    if any(finding.fatal for finding in findings):
        ctx.exit(1)
