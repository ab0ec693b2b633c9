# Completes malai in PowerShell. For all: malai completions powershell >> $PROFILE

Register-ArgumentCompleter -Native -CommandName malai -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements |
        Where-Object { $_.Extent.StartOffset -lt $cursorPosition } |
        ForEach-Object { $_.Extent.Text })
    $program = $words[0]
    $rest = @($words | Select-Object -Skip 1)
    $next = if ($wordToComplete -eq '') { @('--next') } else { @() }
    & $program complete-words @next -- @rest 2>$null | ForEach-Object {
        $word, $about = $_ -split "`t", 2
        if ($word -notlike ':*') {
            $tip = if ($about) { $about } else { $word }
            [System.Management.Automation.CompletionResult]::new($word, $word, 'ParameterValue', $tip)
        }
    }
}
