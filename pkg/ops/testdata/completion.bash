# Completion of shop-keeper for bash. Take it into ~/.bashrc:
#   source <(shop-keeper completion bash)
_shop_keeper() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= words= i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      sell|count) command=${COMP_WORDS[i]}; break ;;
    esac
  done
  case $command:$prev in
    ":--config") return ;;
    "sell:--price") return ;;
    "sell:--to") COMPREPLY=($(compgen -W "anna ben" -- "$cur")); return ;;
  esac
  if [[ $cur == -* ]]; then
    case $command in
      "") words="--config --help" ;;
      "sell") words="--price --to --wrap --help" ;;
      "count") words="--help" ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    return
  fi
  case $command in
    "") words="sell count" ;;
    "count") words="coins goods" ;;
  esac
  if [[ -z $command || $prev == "$command" ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
  fi
}
complete -o default -F _shop_keeper shop-keeper
