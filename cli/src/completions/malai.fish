# Completes malai in fish. For this shell: malai completions fish | source
# For all: malai completions fish > ~/.config/fish/completions/malai.fish

function __malai_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found (command $words[1] complete-words -- $words[2..-1] 2>/dev/null)
    switch "$found[1]"
        case ':files'
            __fish_complete_path (commandline -ct)
        case ':dirs'
            __fish_complete_directories (commandline -ct)
        case '*'
            printf '%s\n' $found
    end
end

complete -c malai -f -a '(__malai_complete)'
