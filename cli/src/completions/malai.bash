# Completes malai in bash. For this shell: eval "$(malai completions bash)"
# For all: malai completions bash > ~/.local/share/bash-completion/completions/malai

_malai() {
    local line=${COMP_LINE:0:COMP_POINT} words=() current broken found reply i
    # Bash breaks words at @ and :, malai does not.
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[${#words[@]} - 1]}
    for ((i = ${#current} - 1; i >= 0; i--)); do
        if [[ $COMP_WORDBREAKS == *"${current:i:1}"* ]]; then
            broken=${current:0:i + 1}
            break
        fi
    done
    COMPREPLY=()
    found=$("${words[0]/#\~/$HOME}" complete-words -- "${words[@]:1}" 2>/dev/null) || return
    case $found in
    :files) compopt -o default ;;
    :dirs) compopt -o dirnames ;;
    *)
        while IFS=$'\t' read -r reply _; do
            [[ -n $reply ]] && COMPREPLY+=("${reply#"$broken"}")
            [[ $reply == *: ]] && compopt -o nospace
        done <<<"$found"
        ;;
    esac
}

complete -F _malai malai
