"""Resource attacks on a real process, with an honest client beside the attacker."""
