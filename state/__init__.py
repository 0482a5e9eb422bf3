"""Exact per-user windows over a stream of payments, and the durable stores behind them.

A leaf package: it knows neither Kafka nor models. `events` holds what arrives, `features` what is declared,
`windows` one partition's users in memory, `history` a whole history at once, `record` a user's durable form, `store`
where records rest.
"""
