"""Store and forward between gateways and the central service: the contract and its two ends."""
