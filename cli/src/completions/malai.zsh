#compdef malai
# Completes malai in zsh. For this shell: source <(malai completions zsh)
# For all: malai completions zsh > a folder of $fpath, as _malai

_malai() {
    local -a found described open
    local line word about program=${(Q)words[1]}
    found=("${(@f)$("${program/#\~\//$HOME/}" complete-words -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    case ${found[1]} in
    :files) _files ;;
    :dirs) _files -/ ;;
    *)
        for line in $found; do
            word=${line%%$'\t'*}
            about=${line#*$'\t'}
            if [[ $word == *: ]]; then
                open+=("${word//:/\\:}:$about")
            else
                described+=("${word//:/\\:}:$about")
            fi
        done
        _describe malai described || _describe malai open -S ''
        ;;
    esac
}

if [[ ${zsh_eval_context[-1]} == loadautofunc ]]; then
    _malai "$@"
else
    compdef _malai malai
fi
