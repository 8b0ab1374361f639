#compdef shop-keeper
# Completion of shop-keeper for zsh. Write it into a folder of $fpath:
#   shop-keeper completion zsh > ~/.zfunc/_shop_keeper
_shop_keeper() {
  local -a commands
  commands=(
    'sell:sell\: at the customer'\''s price'
    'count:count what is left'
  )
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    _describe command commands
    return
  fi
  local command=$words[2]
  if (( $commands[(I)$command:*] )); then
    shift words
    (( CURRENT-- ))
  fi
  case $command in
    sell) _arguments '*--price:N: ' '*--to:anna|ben|URL:(anna ben)' '*--wrap' '*:file:_files' ;;
    count) _arguments '1:what:(coins goods)' '*:file:_files' ;;
    *) _arguments '*--config:FILE:_files' '*:file:_files' ;;
  esac
}
if [[ $funcstack[1] == _shop_keeper ]]; then
  _shop_keeper "$@"
else
  compdef _shop_keeper shop-keeper
fi
