#compdef malai
# Completes malai in zsh. For this shell: source <(malai completions zsh)
# For all: malai completions zsh > a folder of $fpath, as _malai

_malai() {
    local -a found described
    local line word about
    found=("${(@f)$("${(Q)words[1]}" complete-words -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    case ${found[1]} in
    :files) _files ;;
    :dirs) _files -/ ;;
    *)
        for line in $found; do
            word=${line%%$'\t'*}
            about=${line#*$'\t'}
            described+=("${word//:/\\:}:$about")
        done
        _describe malai described
        ;;
    esac
}

if [[ ${zsh_eval_context[-1]} == loadautofunc ]]; then
    _malai "$@"
else
    compdef _malai malai
fi
