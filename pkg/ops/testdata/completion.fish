# Completion of shop-keeper for fish. Write it into a folder that fish reads:
#   shop-keeper completion fish > ~/.config/fish/completions/shop-keeper.fish
complete -c shop-keeper -n '__fish_use_subcommand' -l config -r -F -d 'FILE'
complete -c shop-keeper -n __fish_use_subcommand -f -a sell -d 'sell: at the customer\'s price'
complete -c shop-keeper -n '__fish_seen_subcommand_from sell' -l price -x -d 'N'
complete -c shop-keeper -n '__fish_seen_subcommand_from sell' -l to -x -a 'anna ben' -d 'anna|ben|URL'
complete -c shop-keeper -n '__fish_seen_subcommand_from sell' -l wrap
complete -c shop-keeper -n __fish_use_subcommand -f -a count -d 'count what is left'
complete -c shop-keeper -n '__fish_seen_subcommand_from count' -f -a 'coins goods'
