"""What mmengine's Runner needs of this project: command lines and optimizer constructors."""
