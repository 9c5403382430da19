"""The checks of the kit, by what they are about; `kit` puts them in order."""
